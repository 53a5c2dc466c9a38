"""Run folders that are torn, unfinished or of something else, wherever a run is named."""

from malformed.call import Call
from malformed.faults import column, cut, replaced, reportless, setting

RESUME = "pretrain run/config.yaml --data data --out run --resume"
INIT = "pretrain tiny.yaml --data pairs --out out --init"
EVALUATE = "evaluate run --protocol knn/v1 --data data --out out --device cpu"
REPORT = "report run --data data"
CLUSTERS = "clusters run --data data"
FROM = "evaluate {} --protocol knn/v1 --data data --out out --device cpu"
MODEL, CONFIG, PROVENANCE = "run/model.safetensors", "run/config.yaml", "run/provenance.json"
METRICS = "run/metrics.jsonl"
TEXT = "run/report_encoder.json"
STATES = ("run/state/step-00000004.safetensors", "run/state/step-00000008.safetensors")

RESUMED = [
    Call("pretrain tiny.yaml --data pairs --out nowhere --resume", ["--resume", "nowhere", "no run"]),
    Call("pretrain tiny.yaml --data pairs --out pairs --resume", ["pairs", "config.yaml", "run folder"]),
    Call("pretrain tiny.yaml --data pairs --out pairs/0.png --resume", ["--resume", "pairs/0.png", "no run"]),
    Call("pretrain tiny.yaml --data pairs --resume", ["--out"]),
    Call("pretrain tiny.yaml --data pairs --out out --resume --init run", ["--resume", "--init", "one of them"]),
    Call(f"{RESUME} --set training.seed=5", ["--resume", "training.seed", "config.yaml"], {CONFIG: replaced("a", "a")}),
    Call("pretrain tiny.yaml --data data --out run --resume", ["--resume", "training.batch_size", "--init"]),
    Call(RESUME, ["run/config.yaml", "YAML"], {CONFIG: "a: ["}),
    Call(RESUME, ["run/config.yaml", "mapping"], {CONFIG: "- a\n"}),
    Call(RESUME, ["run/config.yaml", "twists is no setting"], {CONFIG: replaced("training:", "twists: 3\ntraining:")}),
    Call(RESUME, ["config.yaml"], {CONFIG: None}),
    Call("pretrain tiny.yaml --data data --out run --resume", ["run", "config.yaml is missing"], {CONFIG: None}),
    Call("pretrain tiny.yaml --data data --out run --resume", ["run/config.yaml", "YAML"], {CONFIG: "a: ["}),
    Call("pretrain tiny.yaml --data data --out run --resume", ["run/config.yaml", "missing", "cmcgns recipes"], {
        CONFIG: ""}),
    Call("pretrain tiny.yaml --data data --out run --resume", ["run/config.yaml", "UTF-8"], {CONFIG: b"\xff\xfe\x80"}),
    Call("pretrain tiny.yaml --data data --out run --resume", ["run/config.yaml", "mapping"], {CONFIG: "- a\n"}),
    Call(RESUME, ["run/provenance.json", "JSON | damaged"], {PROVENANCE: cut(30)}),
    Call(RESUME, ["run/provenance.json", "JSON | damaged"], {PROVENANCE: "[]"}),
    Call(RESUME, ["step-00000008.safetensors | step-00000004.safetensors", "damaged | cut off | read"], {
        STATES[0]: cut(900), STATES[1]: cut(900)}),
    Call(RESUME, ["tokenizer", "run"], {"run/tokenizer/tokenizer.json": None}),
    Call("pretrain run/config.yaml --data pairs --out run --resume", ["pairs.csv", "changed | other"], {
        CONFIG: replaced("a", "a")}),
    Call(RESUME, ["manifest.parquet", "changed"], {"data/manifest.parquet": column("sex", "F"), CONFIG: replaced(
        "a", "a")}),
    Call(f"{INIT} nowhere", ["--init | nowhere", "no run folder | no such"]),
    Call(f"{INIT} pairs", ["pairs", "config.yaml", "run folder"]),
    Call(f"{INIT} pairs/0.png", ["pairs/0.png", "run folder"]),
    Call(f"{INIT} ''", ["--init | run folder"]),
    Call(f"{INIT} run", ["--init", "run", "model.safetensors", "finish"], {MODEL: None}),
    Call(f"{INIT} run", ["model.safetensors", "damaged | cut off | readable | read"], {MODEL: cut(900)}),
    Call(f"{INIT} run", ["config.yaml", "YAML"], {CONFIG: "a: ["}),
    Call(f"{INIT} run --set objective.dim=64", ["run", "objective.dim | does not fit | objective"]),
    Call(f"{INIT} run --set report_encoder.width=64", ["--init", "report_encoder.width | hidden"]),
    Call(f"{INIT} run --set image_encoder.name=resnet18 --set 'image_encoder.options={{}}'", ["run", "fit | image_enc"]),
]  # fmt: skip

OPENED = [
    Call(FROM.format("nowhere"), ["nowhere", "no run folder", "NAME@FILE"]),
    Call(FROM.format("pairs"), ["pairs", "run folder", "config.yaml"]),
    Call(FROM.format("pairs/0.png"), ["pairs/0.png", "NAME@pairs/0.png"]),
    Call(FROM.format("''"), ["ENCODER", "NAME@FILE"]),
    Call(FROM.format("' '"), ["encoder", "NAME@FILE"]),
    Call(FROM.format("run/model.safetensors"), ["NAME@run/model.safetensors"]),
    Call(EVALUATE, ["run/config.yaml", "YAML"], {CONFIG: "a: ["}),
    Call(EVALUATE, ["run/config.yaml", "mapping"], {CONFIG: "- a\n"}),
    Call(EVALUATE, ["run/config.yaml", "UTF-8"], {CONFIG: b"\xff\xfe\x80"}),
    Call(EVALUATE, ["run", "model.safetensors is missing", "--resume"], {MODEL: None}),
    Call(EVALUATE, ["run/model.safetensors", "damaged | cut off | read"], {MODEL: cut(900)}),
    Call(EVALUATE, ["run/model.safetensors", "damaged | empty | read"], {MODEL: ""}),
    Call(EVALUATE, ["run/model.safetensors", "fit"], {CONFIG: replaced("dim: 32", "dim: 64")}),
    Call(EVALUATE, ["run/tokenizer", "copy it again"], {"run/tokenizer/tokenizer.json": None}),
    Call(EVALUATE, ["run/tokenizer", "damaged | read | JSON | reached"], {"run/tokenizer/tokenizer.json": cut(200)}),
    Call(EVALUATE, ["run/report_encoder.json"], {TEXT: None}),
    Call(EVALUATE, ["run/report_encoder.json", "JSON | damaged"], {TEXT: cut(40)}),
    Call(EVALUATE, ["run/report_encoder.json"], {TEXT: "[]"}),
    Call(EVALUATE, ["report_encoder.json", "nonsense"], {TEXT: setting(model_type="nonsense")}),
    Call(EVALUATE, ["run/report_encoder.json | run/model.safetensors"], {TEXT: setting(hidden_size=48)}),
    Call(f"{EVALUATE} --normalise half", ["run", "normalis", "leave"]),
    Call(f"{EVALUATE} --image-size 64", ["run", "size", "leave"]),
    Call(FROM.format("imagenet:run"), ["imagenet:run", "timm has no model"]),
    Call(FROM.format("random:run@w.pth"), ["random:", "weights file", "contradict"]),
    Call("report nowhere --data data", ["nowhere", "run folder"]),
    Call("report pairs --data data", ["pairs", "config.yaml", "run folder"]),
    Call(REPORT, ["run/config.yaml", "YAML"], {CONFIG: "a: ["}),
    Call(REPORT, ["model.safetensors is missing", "--resume"], {MODEL: None}),
    Call(REPORT, ["run/model.safetensors", "damaged | cut off | read"], {MODEL: cut(900)}),
    Call(REPORT, ["run/provenance.json", "JSON | damaged"], {PROVENANCE: cut(30)}),
    Call(f"{REPORT} --out pairs/0.png", ["--out", "pairs/0.png", "folder"]),
    Call(f"{REPORT} --out pairs/0.png/x", ["--out", "pairs/0.png", "folder"]),
    Call(f"{REPORT} --out /proc/none", ["--out", "/proc/none", "folder"]),
    Call("report run --data nowhere", ["nowhere", "no such"]),
    Call("report run --data pairs/0.png", ["pairs/0.png", "picture", "table"]),
    Call("report run", ["--data"]),
    Call("report", ["RUN"]),
    Call("clusters nowhere --data data", ["nowhere", "run folder"]),
    Call("clusters pairs --data data", ["pairs", "config.yaml", "run folder"]),
    Call("clusters random:run --data data", ["random:run", "only a run has clusters", "finished run"]),
    Call("clusters tiny@run/model.safetensors --data data", ["tiny@run", "run folder"]),
    Call(CLUSTERS, ["model.safetensors is missing", "--resume"], {MODEL: None}),
    Call(CLUSTERS, ["run has no clusters", "in-batch negatives"], {CONFIG: replaced("negatives: cluster", "negatives: in_batch")}),
    Call(CLUSTERS, ["run/metrics.jsonl", "JSON | damaged"], {METRICS: "{\n"}),
    Call(CLUSTERS, ["run/metrics.jsonl", "step 2", "does not fit the bank"], {
        METRICS: '{"kind": "clusters", "step": 2, "shares": [1.0]}\n'}),
    Call(CLUSTERS, ["data/manifest.parquet", "no row is left"], {"data/manifest.parquet": reportless}),
    Call(f"{CLUSTERS} --split dev", ["data/manifest.parquet", "split dev", "found", "--split"]),
    Call(f"{CLUSTERS} --out pairs/0.png", ["--out", "pairs/0.png", "folder"]),
    Call("clusters run --data nowhere", ["nowhere", "no such"]),
    Call("clusters run", ["--data"]),
    Call("clusters", ["RUN"]),
]  # fmt: skip

CALLS = [*RESUMED, *OPENED]
