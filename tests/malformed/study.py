"""`cmcgns study` with files that say what cannot be."""

from malformed.call import Call
from malformed.faults import PYTHON

GOOD = """
name: tried
data: data
recipe: tiny.yaml
cells: [{name: full}, {name: global, set: [objective.weight_report=0]}]
judge: [{protocol: retrieval/v1}]
measures: [{protocol: retrieval/v1, measure: report_to_image_r@10}]
baseline: full
"""
DO = "study s.yaml --out out"


def file(before: str = "", after: str = "") -> dict[str, str]:
    """The good study with one text in place of another."""
    return {"s.yaml": GOOD.replace(before, after) if before else GOOD + after}


CALLS = [
    Call("study", ["STUDY"]),
    Call("study smok --out out", ["smok", "Did you mean smoke?"]),
    Call("study nowhere.yaml --out out", ["nowhere.yaml", "smoke"]),
    Call("study smoke", ["--out"]),
    Call(DO, ["s.yaml", "YAML"], {"s.yaml": "a: ["}),
    Call(DO, ["s.yaml", "mapping"], {"s.yaml": "[a]"}),
    Call(DO, ["s.yaml", "name", "required"], {"s.yaml": ""}),
    Call(DO, ["s.yaml", "python | YAML"], {"s.yaml": PYTHON}),
    Call(DO, ["baselin", "Did you mean baseline?"], file("baseline", "baselin")),
    Call(DO, ["baseline", "ful", "Did you mean full?"], file("baseline: full", "baseline: ful")),
    Call(DO, ["global", "objective.wait_report", "objective.weight_report"], file("weight_report", "wait_report")),
    Call(DO, ["retrieval/v2", "Did you mean retrieval/v1?"], file("[{protocol: retrieval/v1}]", "[{protocol: retrieval/v2}]")),
    Call(DO, ["report_to_image_r@11", "report_to_image_r@10"], file("r@10", "r@11")),
    Call(DO, ["cells", "full", "2 times"], file("name: global", "name: full")),
    Call(DO, ["nowhere", "no such"], file("data: data", "data: nowhere")),
    Call(f"{DO} --cells ful", ["--cells", "Did you mean full?"], file()),
    Call(f"{DO} --seeds 5", ["--seeds 5", "0"], file()),
    Call(f"{DO} --seeds all", ["--seeds all", "0,1"], file()),
    Call(f"{DO} --engine pool", ["--engine", "local", "ray"], file()),
    Call(f"{DO} --accelerator tpu", ["tpu", "cpu", "cuda"], file()),
    Call(f"{DO} --table-only", ["out", "no result"], file()),
    Call("study s.yaml --out pairs/0.png", ["--out", "pairs/0.png", "folder"], file()),
]  # fmt: skip
