"""`cmcgns evaluate` and `protocols`; torn run folders are in `runs.py`."""

import json

from malformed.call import Call
from malformed.faults import (
    DEEP,
    LAUGHS,
    PICKLE,
    PYTHON,
    column,
    copy,
    cut,
    every_image,
    folder,
    parquet,
    picture,
    reportless,
    setting,
)

WHO = "evaluate {} --protocol knn/v1 --data data --out out --device cpu"
BY = "evaluate run --data data --out out --device cpu --protocol"
ON = "evaluate run --protocol knn/v1 --out out --device cpu --data"
KNN = "evaluate run --protocol knn/v1 --data data --out out --device cpu --fractions 100 --seeds 1"
TO = "evaluate run --protocol knn/v1 --data data --device cpu --out"
SHOW = "protocols show"
MINE, MANIFEST = "mine.yaml", "data/manifest.parquet"
OWN = "id: mine/v1\ntitle: mine\ntask: knn\nsplit: {rule: any}\n"


def boxes(*content: object) -> str:
    """A cell of boxes."""
    return json.dumps(list(content))


BOX = {"label": "nodule", "x": 3, "y": 3, "width": 9, "height": 9}

NAMES = [
    Call(WHO.format("@"), ["@", "NAME@FILE"]),
    Call(WHO.format("resnet18@"), ["resnet18@", "NAME@FILE | file"]),
    Call(WHO.format("@w.pth"), ["@w.pth", "NAME@FILE"], {"w.pth": "x"}),
    Call(WHO.format("resnett18@w.pth"), ["resnett18", "Did you mean resnet18?"], {"w.pth": "x"}),
    Call(WHO.format("resnet18@nothing.pth"), ["nothing.pth", "no such"]),
    Call(WHO.format("resnet18@pairs"), ["pairs", "no such weights file | folder"]),
    Call(WHO.format("resnet18@w.pth"), ["w.pth", "weights file"], {"w.pth": "words"}),
    Call(WHO.format("resnet18@w.pth"), ["w.pth", "empty | weights file"], {"w.pth": ""}),
    Call(WHO.format("resnet18@w.pth"), ["w.pth", "code is not run"], {"w.pth": PICKLE}),
    Call(WHO.format("resnet18@w.safetensors"), ["w.safetensors", "weights file"], {"w.safetensors": "words"}),
    Call(WHO.format("resnet18@run/model.safetensors"), ["run/model.safetensors", "fit | run"]),
    Call(WHO.format("random:"), ["random:", "random:RUN | random:NAME"]),
    Call(WHO.format("random:x"), ["random:x | x", "timm"]),
    Call(WHO.format("random:resnett18"), ["resnett18", "Did you mean resnet18?"]),
    Call(WHO.format("random:nowhere/run"), ["nowhere/run", "run folder | timm"]),
    Call(WHO.format("imagenet:"), ["imagenet:", "imagenet:NAME"]),
    Call(WHO.format("imagenet:x"), ["imagenet:x", "timm"]),
    Call(WHO.format("imagenet:resnet18@w.pth"), ["imagenet:", "weights file", "contradict"]),
    Call(WHO.format("imagent:resnet18"), ["imagent:resnet18", "imagenet:"]),
    Call(f"{WHO.format('random:resnet18')} --image-size 8", ["--image-size", "16"]),
    Call(f"{WHO.format('random:resnet18')} --image-size big", ["--image-size", "integer"]),
    Call(f"{WHO.format('random:resnet18')} --normalise clip", ["--normalise", "half", "imagenet"]),
]

PROTOCOLS = [
    Call(f"{BY} ''", ["--protocol", "cmcgns protocols list"]),
    Call(f"{BY} ,", ["--protocol", "cmcgns protocols list"]),
    Call(f"{BY} knnn/v1", ["knnn/v1", "Did you mean knn/v1?"]),
    Call(f"{BY} zzz", ["zzz", "cmcgns protocols list"]),
    Call(f"{BY} knn/v1,zzz", ["zzz", "cmcgns protocols list"]),
    Call(f"{BY} rsna-linear/v1", ["rsna-linear/v1", "rsna", "data (phantom)"]),
    Call(f"{BY} nothing.yaml", ["nothing.yaml", "no such"]),
    Call(f"{BY} {MINE},copy.yaml", ["two protocols", "mine/v1", "id"], {MINE: OWN, "copy.yaml": OWN}),
    Call(f"{BY} knn/v1 --set settings.k", ["--set settings.k", "key=value", "key=value"]),
    Call(f"{BY} knn/v1 --set settings.k=0", ["k", "greater than or equal to 1"]),
    Call(f"{BY} knn/v1 --set settings.kk=3", ["kk is no setting", "Did you mean k?"]),
    Call(f"{BY} knn/v1 --set zzzzzz=3", ["zzzzzz is no setting", "cmcgns protocols show"]),
    Call(f"{BY} knn/v1 --set training.batch_size=3", ["training is no setting", "cmcgns protocols show"]),
    Call(f"{BY} knn/v1 --set seeds=0", ["seeds", "greater than or equal to 1"]),
    Call(f"{BY} knn/v1 --set fractions=[0]", ["fractions", "greater than 0"]),
    Call(f"{BY} knn/v1 --set fractions=[]", ["fractions", "at least | empty"]),
    Call(f"{BY} knn/v1 --set labels=[Nonsense]", ["Nonsense", "found: "], status=1),
    Call(f"{BY} knn/v1 --set split.test=[tset]", ["data", "tset", "found | split"], status=1),
    Call(f"{BY} knn/v1 --set split.column=fold", ["fold", "column"], status=1),
    Call(f"{BY} knn/v1 --set split.test=[train]", ["train", "test"], status=1),
    Call(f"{BY} knn/v1 --set primary=zzz", ["primary", "zzz", "auroc"]),
    Call(f"{BY} knn/v1 --set image_size=7", ["image_size", "greater than or equal to 16"]),
    Call(f"{BY} retrieval/v1 --set settings.ks=[]", ["ks", "at least 1"]),
    Call(f"{BY} zero-shot/v1 --set settings.prompts=nothing.yaml", ["nothing.yaml", "no such"]),
    Call(f"{BY} zero-shot/v1 --set settings.prompts=nothing", ["nothing", "neither a file nor one of", "template"]),
    Call(f"{BY} knn/v1 --set settings.prompts=nothing", ["prompts is no setting", "cmcgns protocols show"]),
    Call(f"{BY} zero-shot/v1 --set settings.prompts={MINE}", ["mine.yaml", "Edema", "mapping"], {MINE: "Edema: 3\n"}),
    Call(f"{BY} zero-shot/v1 --set settings.prompts={MINE}", ["Edema", "negative"], {
        MINE: "Edema: {positive: [Edema.]}\n"}),
    Call(f"{BY} knn/v1 --finetune", ["--finetune", "linear"]),
    Call(f"{BY} retrieval/v1 --fractions 1", ["--fractions", "learn | retrieval/v1"]),
    Call(f"{BY} retrieval/v1 --seeds 3", ["--seeds", "learn | retrieval/v1"]),
    Call(f"{SHOW}", ["NAME"]),
    Call(f"{SHOW} knnn", ["knnn", "Did you mean knn/v1?"]),
    Call(f"{SHOW} ''", ["protocol", "cmcgns protocols list"]),
    Call(f"{SHOW} pairs", ["pairs", "cmcgns protocols list", ".yaml"]),
    Call(f"{SHOW} knn/v1 --set k", ["--set k", "key=value"]),
    Call(f"{SHOW} {MINE}", [MINE, "id"], {MINE: ""}),
    Call(f"{SHOW} {MINE}", [MINE, "mapping"], {MINE: "[a]"}),
    Call(f"{SHOW} {MINE}", [MINE, "YAML"], {MINE: "id: ["}),
    Call(f"{SHOW} {MINE}", [MINE, "UTF-8"], {MINE: b"id: \xff"}),
    Call(f"{SHOW} {MINE}", [MINE, "no such protocol file | folder"], {MINE: folder}),
    Call(f"{SHOW} {MINE}", [MINE, "python", "tag | plain"], {MINE: PYTHON}),
    Call(f"{SHOW} {MINE}", [MINE, "alias"], {MINE: LAUGHS}),
    Call(f"{SHOW} {MINE}", [MINE, "nested too deeply"], {MINE: DEEP}),
    Call(f"{SHOW} {MINE}", [MINE, "own `base`"], {MINE: f"id: mine/v1\nbase: {MINE}\n"}),
    Call(f"{SHOW} {MINE}", ["zzz", "cmcgns protocols list"], {MINE: "id: mine/v1\nbase: zzz\n"}),
    Call(f"{SHOW} {MINE}", [MINE, "base"], {MINE: "id: mine/v1\nbase: [knn/v1]\n"}),
    Call(f"{SHOW} {MINE}", [MINE, "`id` of its own"], {MINE: "id: knn/v1\nbase: linear/v1\n"}),
    Call(f"{SHOW} {MINE}", [MINE, "`id` of its own"], {MINE: "base: knn/v1\n"}),
    Call(f"{SHOW} {MINE}", [MINE, "id"], {MINE: OWN.replace("mine/v1", "Mine v1")}),
    Call(f"{SHOW} {MINE}", [MINE, "id"], {MINE: OWN.replace("mine/v1", "[a]")}),
    Call(f"{SHOW} {MINE}", [MINE, "title"], {MINE: "id: mine/v1\ntask: knn\n"}),
    Call(f"{SHOW} {MINE}", [MINE, "task", "linear"], {MINE: OWN.replace("knn", "regression")}),
    Call(f"{SHOW} {MINE}", [MINE, "settings", "dictionary | mapping"], {MINE: f"{OWN}settings: 3\n"}),
    Call(f"{SHOW} {MINE}", [MINE, "colour is no setting"], {MINE: f"{OWN}colour: red\n"}),
    Call(f"{SHOW} {MINE}", [MINE, "split.rule", "legacy"], {MINE: OWN.replace("any", "v9")}),
    Call(f"{SHOW} {MINE}", [MINE, "uncertain", "less than or equal to 1"], {MINE: f"{OWN}uncertain: {{Edema: 3}}\n"}),
    Call("protocols", ["show", "list"]),
    Call("protocols list extra", ["extra"]),
    Call("protocols sow knn", ["sow", "show"]),
]  # fmt: skip

DATA = [
    Call(f"{ON} nowhere", ["nowhere", "no such", "cmcgns prepare"]),
    Call(f"{ON} pairs", ["pairs", "no such manifest", "cmcgns prepare"]),
    Call(f"{ON} pairs/pairs.csv", ["pairs.csv", "cmcgns prepare table"]),
    Call(f"{ON} pairs/0.png", ["pairs/0.png", "picture", "table"]),
    Call(f"{ON} ''", ["--data | manifest"]),
    Call(f"{ON} s3://bucket/data", ["s3://bucket/data | s3:/bucket/data", "manifest | local"]),
    Call("evaluate run --protocol knn/v1 --out out", ["--data"]),
    Call(f"{ON} data --data other", ["data and other", "--out"], {"other": copy("data")}),
    Call(KNN, ["manifest.parquet", "parquet"], {MANIFEST: "words"}),
    Call(KNN, ["manifest.parquet", "parquet"], {MANIFEST: cut(200)}),
    Call(KNN, ["manifest.parquet", "missing column view"], {MANIFEST: column("view", None)}),
    Call(KNN, ["manifest.parquet", "age", "row 2", "whole number"], {MANIFEST: column("age", ["3", "old"])}),
    Call(KNN, ["data", "row | empty"], {MANIFEST: column("split", "")}, status=1),
    Call(KNN, ["data", "val | test"], {MANIFEST: column("split", "train")}, status=1),
    Call(KNN, ["data", "rows", "cmcgns prepare"], {MANIFEST: parquet(
        image_path=[], study_id=[], patient_id=[], dataset=[], view=[], split=[])}, status=1),
    Call(KNN, ["label_Edema", "7", "1, 0, -1"], {MANIFEST: column("label_Edema", [7])}, status=1),
    Call(KNN, ["label_Edema", "row 1", "whole number"], {MANIFEST: column("label_Edema", [0.5])}),
    Call(KNN, ["data", "same file", "one row"], {
        MANIFEST: column("image_path", "images/phantom-1-000000.png")}, status=1),
    Call(KNN, ["8 images", "no such", "cmcgns check"], {"data/images": every_image(None)}, status=1),
    Call(KNN, ["images", "cannot be read | unreadable | not a"], {"data/images": every_image(b"words")}, status=1),
    Call(f"{BY} detection/v1 --fractions 100 --seeds 1", ["boxes | box"], {
        MANIFEST: column("boxes", ["not json"] * 30)}, status=1),
    Call(f"{BY} detection/v1 --fractions 100 --seeds 1", ["box", "cmcgns check", "x"], {
        MANIFEST: column("boxes", [boxes({"label": "nodule"})] * 30)}, status=1),
    Call(f"{BY} detection/v1 --fractions 100 --seeds 1", ["box", "cmcgns check", "width"], {
        MANIFEST: column("boxes", [boxes(BOX | {"width": 0})] * 30)}, status=1),
    Call(f"{BY} detection/v1 --fractions 100 --seeds 1", ["box", "cmcgns check", "width"], {
        MANIFEST: column("boxes", [boxes(BOX | {"width": -4})] * 30)}, status=1),
    Call(f"{BY} detection/v1 --fractions 100 --seeds 1", ["box", "cmcgns check", "x"], {
        MANIFEST: column("boxes", [boxes(BOX | {"x": float("nan")})] * 30)}, status=1),
    Call(f"{BY} detection/v1 --fractions 100 --seeds 1", ["boxes", "outside | inside | beyond | image"], {
        MANIFEST: column("boxes", [boxes(BOX | {"x": 900})] * 30)}, status=1),
    Call(f"{BY} detection/v1 --fractions 100 --seeds 1", ["boxes", "list"], {
        MANIFEST: column("boxes", ['{"x": 3}'] * 30)}, status=1),
    Call(f"{BY} detection/v1 --fractions 100 --seeds 1", ["boxes"], {MANIFEST: column("boxes", "")}, status=1),
    Call(f"{BY} grounding/v1", ["boxes"], {MANIFEST: column("boxes", ["not json"] * 30)}, status=1),
    Call(f"{BY} segmentation/v1 --fractions 100 --seeds 1", ["masks"], {
        "data/masks": every_image(picture(width=9, height=5))}, status=1),
    Call(f"{BY} segmentation/v1 --fractions 100 --seeds 1", ["masks", "no such | missing"], {
        "data/masks": every_image(None)}, status=1),
    Call(f"{BY} segmentation/v1 --fractions 100 --seeds 1", ["masks", "PNG | read"], {
        "data/masks": every_image(b"words")}, status=1),
    Call(f"{BY} segmentation/v1 --fractions 100 --seeds 1", ["mask"], {MANIFEST: column("mask_path", "")}, status=1),
    Call(f"{BY} retrieval/v1", ["report | text"], {MANIFEST: reportless}, status=1),
]  # fmt: skip

OPTIONS = [
    Call(f"{TO} pairs/0.png", ["pairs/0.png", "folder"]),
    Call(f"{TO} pairs/0.png/x", ["pairs/0.png", "folder"]),
    Call(f"{TO} /proc/none", ["/proc/none", "folder"]),
    Call(f"{TO} {'n' * 300}", ["too long"]),
    Call(f"{TO} twin", ["twin", "another --out | another encoder | other"]),
    Call(f"{TO} judged", ["judged/encoder.json", "damaged | JSON | delete"], {"judged/encoder.json": "{"}),
    Call("evaluate run --protocol knn/v1 --data data", ["--out"]),
    Call("evaluate", ["ENCODER"]),
    Call(f"{TO} out --fractions a", ["--fractions a", "1,10,100"]),
    Call(f"{TO} out --fractions 0", ["--fractions 0", "above 0"]),
    Call(f"{TO} out --fractions 101", ["--fractions 101", "100"]),
    Call(f"{TO} out --fractions=-5", ["--fractions -5", "above 0"]),
    Call(f"{TO} out --fractions nan", ["--fractions nan", "above 0"]),
    Call(f"{TO} out --fractions inf", ["--fractions inf", "100"]),
    Call(f"{TO} out --fractions ''", ["--fractions", "1,10,100"]),
    Call(f"{TO} out --fractions 1,,10", ["--fractions 1,,10", "1,10,100"]),
    Call(f"{TO} out --seeds 0", ["--seeds", "1"]),
    Call(f"{TO} out --seeds -1", ["--seeds", "1"]),
    Call(f"{TO} out --seeds few", ["--seeds", "integer"]),
    Call(KNN.replace("cpu", "tpu"), ["--device tpu", "cpu", "cuda"]),
    Call(KNN.replace("cpu", "cuda:99"), ["--device cuda:99", "device"]),
    Call(KNN.replace("cpu", "cpu:5"), ["--device cpu:5", "device"]),
    Call(KNN.replace("cpu", "cuda:x"), ["--device cuda:x", "cuda:NUMBER"]),
    Call(KNN.replace("cpu", "''"), ["--device", "cpu"]),
    Call(f"{TO} out --finetun", ["--finetun", "--finetune"]),
]

COMPARE = [
    Call("compare", ["FIRST"]),
    Call("compare judged", ["SECOND"]),
    Call("compare judged nowhere", ["nowhere", "cmcgns evaluate"]),
    Call("compare nowhere judged", ["nowhere", "cmcgns evaluate"]),
    Call("compare judged pairs", ["pairs", "cmcgns evaluate"]),
    Call("compare judged pairs/0.png", ["pairs/0.png", "cmcgns evaluate | folder"]),
    Call("compare judged judged", ["judged", "same | twice"]),
    Call("compare judged ''", ["cmcgns evaluate"]),
    Call("compare judged twin --out pairs/0.png", ["--out", "pairs/0.png", "folder"]),
    Call("compare judged twin --out pairs/0.png/x", ["--out", "pairs/0.png", "folder"]),
    Call("compare judged twin --out /proc/none", ["--out", "/proc/none", "folder"]),
    Call("compare judged twin", ["twin/encoder.json", "damaged | JSON"], {"twin/encoder.json": "{"}),
    Call("compare judged twin", ["twin/encoder.json"], {"twin/encoder.json": "[]"}),
    Call("compare judged twin", ["twin/encoder.json | twin", "cmcgns evaluate"], {"twin/encoder.json": None}),
    Call("compare judged twin", ["knn-v1@phantom/protocol.json", "evaluate"], {
        "twin/cells/knn-v1@phantom/protocol.json": cut(30)}),
    Call("compare judged twin", ["no finished cell in common"], {
        "twin/cells/knn-v1@phantom/100-percent-seed-0.json": None, "twin/cells/retrieval-v1@phantom/all.json": None}),
    Call("compare judged twin", ["100-percent-seed-0.npz", "damaged", "cmcgns evaluate"], {
        "twin/cells/knn-v1@phantom/100-percent-seed-0.npz": cut(99)}),
    Call("compare judged twin", ["100-percent-seed-0.npz", "damaged", "cmcgns evaluate"], {
        "twin/cells/knn-v1@phantom/100-percent-seed-0.npz": "words"}),
    Call("compare judged twin", ["100-percent-seed-0", "damaged", "cmcgns evaluate"], {
        "twin/cells/knn-v1@phantom/100-percent-seed-0.json": setting(facts=None)}),
    Call("compare judged twin", ["knn/v1@phantom", "splits", "same prepared data"], {
        "twin/cells/knn-v1@phantom/protocol.json": setting(split_sha256="0" * 64)}),
    Call("compare judged twin", ["knn/v1@phantom", "settings of the protocol"], {
        "twin/cells/knn-v1@phantom/protocol.json": setting(protocol_sha256="0" * 64)}),
    Call("compare judged twin", ["protocol.json", "evaluate"], {
        "judged/cells/knn-v1@phantom/protocol.json": setting(settings={})}),
]  # fmt: skip

CALLS = [*NAMES, *PROTOCOLS, *DATA, *OPTIONS, *COMPARE]
