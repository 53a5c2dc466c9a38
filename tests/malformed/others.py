"""`check`, `recipes`, `bench`, `phantom`, `demo`, and words that are no verb."""

from malformed.call import Call
from malformed.faults import column, cut, folder

MANIFEST = "data/manifest.parquet"
STUDIES = "phantom studies --size 32 --workers 1"
FEW = "--train 2 --val 1 --test 1"
STEP = "bench step tiny.yaml --batch 2 --steps 1 --device cpu"

ROOT = [
    Call("pretrian tiny.yaml", ["pretrian", "pretrain"]),
    Call("--nonsense", ["--nonsense"]),
    Call("''", ["command"]),
    Call("pretrain --help-me", ["--help-me"]),
]

CHECK = [
    Call("check", ["check", "prepared folder"]),
    Call("check nowhere", ["nowhere", "no such manifest", "cmcgns prepare"]),
    Call("check pairs", ["pairs", "no such manifest", "cmcgns prepare"]),
    Call("check pairs/pairs.csv", ["pairs.csv", "cmcgns prepare table"]),
    Call("check pairs/0.png", ["pairs/0.png", "picture", "table"]),
    Call("check run", ["run", "no such manifest"]),
    Call("check ''", ["manifest | folder"]),
    Call("check data data", ["data", "twice"]),
    Call("check data --skip nonsense", ["nonsense", "rule", "cmcgns check --list-rules"]),
    Call("check data --skip ''", ["rule", "cmcgns check --list-rules"]),
    Call("check data --skip patient-across-split", ["Did you mean patients-across-splits?"]),
    Call("check data --skip duplicate-imags", ["duplicate-imags", "rules are | did you mean"]),
    Call("check data --out pairs/0.png", ["--out", "pairs/0.png", "folder"]),
    Call("check data --out pairs/0.png/x", ["--out", "pairs/0.png", "folder"]),
    Call("check data --out /proc/none", ["--out", "/proc/none", "folder"]),
    Call(f"check data --out {'n' * 300}", ["too long"]),
    Call("check data", ["manifest.parquet", "parquet"], {MANIFEST: "words"}),
    Call("check data", ["manifest.parquet", "parquet"], {MANIFEST: cut(300)}),
    Call("check data", ["manifest.parquet", "parquet"], {MANIFEST: ""}),
    Call("check data", ["manifest.parquet", "missing column dataset"], {MANIFEST: column("dataset", None)}),
    Call("check data", ["manifest.parquet", "age", "row 1"], {MANIFEST: column("age", ["old"])}),
    Call("check data", ["manifest.parquet", "width", "row 1"], {MANIFEST: column("width", [1e12])}),
    Call("check data", ["manifest.parquet", "label_Edema", "row 1"], {
        MANIFEST: column("label_Edema", ["maybe"])}),
    Call("check data", ["manifest.parquet | no such"], {MANIFEST: folder}),
    Call("check data", ["boxes"], {MANIFEST: column("boxes", ["not json"])}, status=1),
    Call("check data", ["image"], {"data/images": lambda path: next(path.iterdir()).write_text("words")}, status=1),
    Call("check data", ["mask"], {"data/masks": lambda path: next(path.iterdir()).write_text("words")}, status=1),
    Call("check data --no-images", ["label_Edema"], {MANIFEST: column("label_Edema", [7])}, status=1),
    Call("figures", ["FOLDER"]),
    Call("figures nowhere", ["nowhere", "cmcgns evaluate"]),
    Call("figures pairs", ["pairs", "cmcgns evaluate"]),
    Call("figures judged", ["judged/encoder.json", "damaged | JSON"], {"judged/encoder.json": "{"}),
    Call("check data --fix", ["manifest.cleaned.parquet"], {"data/manifest.cleaned.parquet": folder}),
]  # fmt: skip

RECIPES = [
    Call("recipes dmo", ["dmo", "Did you mean demo?"]),
    Call("recipes nothing.yaml", ["nothing.yaml", "no such | no recipe"]),
    Call("recipes mine.yaml", ["mine.yaml", "YAML"], {"mine.yaml": "a: ["}),
    Call("recipes demo --set training", ["--set training", "key=value"]),
    Call("recipes demo --set data.resize=1", ["data.resize", "data.image_size"]),
    Call("recipes --set training.seed=1", ["--set", "recipe"]),
    Call("recipes demo small-cpu", ["small-cpu"]),
]

BENCH = [
    Call("bench", ["step"]),
    Call("bench step", ["RECIPE"]),
    Call("bench stp demo", ["stp", "step"]),
    Call("bench step dmo", ["dmo", "Did you mean demo?"]),
    Call("bench step tiny.yaml --batch 1", ["--batch", "2"]),
    Call("bench step tiny.yaml --batch few", ["--batch", "integer"]),
    Call("bench step tiny.yaml --steps 0", ["--steps", "1"]),
    Call("bench step tiny.yaml --device tpu", ["tpu", "cpu", "cuda"]),
    Call("bench step tiny.yaml --device ''", ["accelerator", "cpu", "cuda"]),
    Call("bench step tiny.yaml --stage both", ["--stage", "alignment", "reconstruction"]),
    Call("bench step tiny.yaml --report-config gpt", ["--report-config", "bert-base"]),
    Call(f"{STEP} --json pairs", ["--json", "pairs", "folder | file"]),
    Call(f"{STEP} --json pairs/0.png/x.json", ["--json", "pairs/0.png", "folder"]),
    Call(f"{STEP} --json /proc/none/x.json", ["--json", "/proc/none"]),
    Call(f"{STEP} --set training.batch_sise=2", ["Did you mean training.batch_size?"]),
    Call(f"{STEP} --set report_encoder.name=nobody/nothing", ["report_encoder.name", "nobody/nothing"]),
    Call(f"{STEP} --set image_encoder.name=resnett18", ["Did you mean resnet18?"]),
    Call("bench step tiny.yaml --set training.batch_size=1 --steps 1 --device cpu", ["batch", "at least 2"]),
]  # fmt: skip

PHANTOM = [
    Call("phantom", ["studies", "tree"]),
    Call("phantom study", ["study", "studies"]),
    Call("phantom studies", ["--out"]),
    Call(f"{STUDIES} --out out --train -1", ["train", "-1", "negative"]),
    Call(f"{STUDIES} --out out --train 0 --val 0 --test 0", ["--train | train", "no study"]),
    Call(f"{STUDIES} --out out --train many", ["--train", "integer"]),
    Call(f"{STUDIES} --out out --train {'9' * 30}", ["--train", "less than or equal to"]),
    Call(f"phantom studies --out out {FEW} --workers 1 --size 8", ["size 8", "or more"]),
    Call(f"phantom studies --out out {FEW} --workers 1 --size -8", ["size -8", "or more"]),
    Call(f"phantom studies --out out {FEW} --workers 1 --size 9999999", ["size 9999999", "at most"]),
    Call(f"phantom studies --out out {FEW} --workers 0", ["--workers", "1"]),
    Call(f"phantom studies --out out {FEW} --workers 1000000", ["--workers", "1024"]),
    Call(f"{STUDIES} --out out {FEW} --seed -1", ["--seed", "0"]),
    Call(f"{STUDIES} --out data {FEW}", ["data/manifest.parquet", "another"]),
    Call(f"{STUDIES} --out pairs/0.png {FEW}", ["--out", "pairs/0.png", "folder"]),
    Call(f"{STUDIES} --out pairs/0.png/x {FEW}", ["--out", "pairs/0.png", "folder"]),
    Call(f"{STUDIES} --out /proc/none {FEW}", ["--out", "/proc/none", "folder"]),
    Call(f"{STUDIES} --out {'n' * 300} {FEW}", ["too long"]),
    Call("phantom tree openii --out out", ["openii", "did you mean openi"]),
    Call("phantom tree zzz --out out", ["zzz", "known: | there are"]),
    Call("phantom tree openi", ["--out"]),
    Call("phantom tree openi --out out --studies 3", ["studies", "3", "8 or more"]),
    Call("phantom tree openi --out out --studies 8 --size 4", ["size 4", "or more"]),
    Call("phantom tree openi --out out --studies 8 --size 9999999", ["size 9999999", "at most"]),
    Call("phantom tree openi --out out --studies 8 --size 32 --seed -1", ["--seed", "0"]),
    Call("phantom tree openi --out pairs --studies 8", ["pairs", "another"]),
    Call("phantom tree openi --out pairs/0.png --studies 8", ["pairs/0.png", "folder"]),
    Call("phantom tree openi --out pairs/0.png/x --studies 8 --size 32", ["pairs/0.png", "folder"]),
    Call("phantom tree openi --out /proc/none --studies 8 --size 32", ["/proc/none", "folder"]),
]

DEMO = [
    Call("demo demo", ["demo"]),
    Call("demo --recipe dmo", ["dmo", "Did you mean demo?"]),
    Call("demo --set training.sed=1", ["training.sed", "Did you mean training.seed?"]),
    Call("demo --out pairs/0.png", ["--out", "pairs/0.png", "folder"]),
    Call("demo --out pairs/0.png/x", ["--out", "pairs/0.png", "folder"]),
    Call("demo --out /proc/none", ["--out", "/proc/none", "folder"]),
    Call("demo --out done", ["done/report.html", "another --out"], {"done/report.html": "x"}),
    Call("demo --out mine", ["mine/data/manifest.parquet", "parquet"], {"mine/data/manifest.parquet": "words"}),
    Call("demo --out mine", ["mine/run/config.yaml", "YAML"], {
        "data/a": "", "mine/run/config.yaml": "a: [", "mine/data": lambda path: path.symlink_to("../data")}),
]  # fmt: skip

CALLS = [*ROOT, *CHECK, *RECIPES, *BENCH, *PHANTOM, *DEMO]
