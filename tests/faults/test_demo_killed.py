"""A demo that is killed at any moment and called again ends as one that nothing disturbed."""

import json
import os
import sys
from pathlib import Path

from support.faults import Undisturbed, moments, run_until_killed, run_whole, timed

KILLS = int(os.environ.get("KILLS", "20"))
DEMO = """
import sys
from pathlib import Path
from cmcgns.demo import run_demo
from cmcgns.settings.recipe import load_recipe
run_demo(load_recipe(sys.argv[1]), Path(sys.argv[2]), {"train": 32, "val": 12, "test": 48})
"""


def left(out: Path) -> dict[str, bytes]:
    """What the demo is about: pictures, weights, figures."""
    judged = [f"evaluation/{name}/results.jsonl" for name in ("pretrained", "random")]
    found = {name: (out / name).read_bytes() for name in ("run/model.safetensors", "data/manifest.parquet", *judged)}
    results = json.loads((out / "results.json").read_text())
    del results["seconds"]
    found["results.json"] = json.dumps(results).encode()
    return found | {path.name: path.read_bytes() for path in sorted((out / "data" / "images").iterdir())}


def test_demo(undisturbed: Undisturbed, tmp_path: Path) -> None:
    def demo(out: Path) -> list[str]:
        return [sys.executable, "-c", DEMO, str(undisturbed.recipe), str(out)]

    seconds = timed(demo(tmp_path / "whole"))
    expected = left(tmp_path / "whole")
    for number, moment in enumerate(moments(seconds, KILLS, seed=5)):
        out = tmp_path / f"killed-{number}"
        if run_until_killed(demo(out), moment) == 0:
            continue
        done = run_whole(demo(out))
        assert done.returncode == 0 or "is there already" in done.stderr, done.stderr
        assert left(out) == expected
