"""Two processes through the command line: the same training as one process with all the studies."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from cmcgns.settings.config import Recipe
from cmcgns.training.journal import read_metrics
from support.training import BATCH, assert_same_end, run, tiny_recipe

# No BatchNorm, whose statistics are those of a rank, and no dropout, which differs between the ranks.
VIT = {
    "name": "vit_tiny_patch16_224",
    "channels": 1,
    "options": {
        "patch_size": 8,
        "embed_dim": 32,
        "depth": 2,
        "num_heads": 2,
        "class_token": False,
        "global_pool": "avg",
    },
}


def vit_recipe(**changes: Any) -> Recipe:
    # z1 as the bank's source: early on all z2 are alike, and rounding decides between their centroids.
    fixed = {
        "image_encoder": VIT,
        "report_encoder__dropout": 0.0,
        "training__log_every": 1,
        "objective__bank__source": "text",
    }
    return tiny_recipe(**{**fixed, **changes})


# Writes what every rank logs and holds, beside the run.
WATCH = """
import json, os
from cmcgns.training import loop
step, seen = loop.training_step, []
def watched(fabric, module, task, *rest, **options):
    figures = step(fabric, module, task, *rest, **options)
    seen.append({name: float(value) for name, value in figures.items()})
    weights = [float(p.detach().double().sum()) for p in task.state_dict().values()]
    with open(f"{os.environ['WATCH']}{fabric.global_rank}", "w") as file:
        json.dump({"figures": seen, "weights": weights}, file)
    return figures
loop.training_step = watched
validate = loop.validate
loop.validate = lambda task, rows, size, *rest: validate(task, rows, 2 * size, *rest)  # as many negatives as one rank
"""

# The first rank alone gets a signal, in the second step.
SIGNAL = """
import os, signal
before, count = loop.training_step, iter(range(99))
def signalled(fabric, *rest, **options):
    if next(count) == 1 and fabric.is_global_zero:
        os.kill(os.getpid(), signal.SIGTERM)
    return before(fabric, *rest, **options)
loop.training_step = signalled
"""


@dataclass
class Script:
    """The command line in a script of its own, which Lightning starts again for the second rank."""

    folder: Path
    studies: Path

    def __call__(self, out: Path, *more: str, wrap: str = WATCH) -> subprocess.CompletedProcess[str]:
        recipe, script = self.folder / "tiny.yaml", self.folder / f"script-{out.name}.py"
        recipe.write_text(yaml.safe_dump(vit_recipe().model_dump(mode="json")))
        script.write_text(
            f"import torch\ntorch.set_num_threads(1)\n{wrap}\nfrom cmcgns.cli.app import main\nmain()\n"
        )
        arguments = ["pretrain", str(recipe), "--data", str(self.studies), "--out", str(out)]
        return subprocess.run(
            [sys.executable, str(script), *arguments, "--accelerator=cpu", "--devices=2", *more],
            env=os.environ | {"WATCH": f"{out}-rank"},
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def script(studies: Path, tmp_path_factory: pytest.TempPathFactory) -> Script:
    return Script(tmp_path_factory.mktemp("two"), studies)


@pytest.fixture(scope="module")
def two(script: Script) -> Path:
    """A run of two ranks that nothing interrupted."""
    done = script(script.folder / "run")
    assert done.returncode == 0, done.stderr
    return script.folder / "run"


@pytest.mark.slow
def test_two_ranks_equal_one_rank_of_twice_the_batch(two: Path, studies: Path, tmp_path: Path) -> None:
    """Losses, gradient norms, validation, weights and bank, through both stages; and the ranks agree exactly."""
    one = run(studies, tmp_path / "one", vit_recipe(training__batch_size=2 * BATCH))
    ranks = [yaml.safe_load(Path(f"{two}-rank{rank}").read_text()) for rank in (0, 1)]
    assert ranks[0] == ranks[1]
    curves = [read_metrics(out / "metrics.jsonl") for out in (one, two)]
    assert len(curves[0]) == len(curves[1])
    for first, second in zip(*curves, strict=True):
        assert first.keys() == second.keys()
        for name, value in first.items():
            if isinstance(value, float):
                assert second[name] == pytest.approx(value, rel=1e-3, abs=1e-4), (name, first, second)
            else:
                assert second[name] == value
    expected, found = load_file(one / "model.safetensors"), load_file(two / "model.safetensors")
    for name, value in expected.items():
        if not name.endswith("key.bias"):  # its gradient is 0, and Adam makes steps of the rounding
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
def test_signal_to_one_rank_stops_both_and_the_resumed_run_is_the_same(two: Path, script: Script) -> None:
    out = script.folder / "stopped"
    stopped = script(out, wrap=WATCH + SIGNAL)
    assert stopped.returncode == 143, stopped.stderr
    assert stopped.stderr.count("stopped at step 2;") == 1
    assert "Traceback" not in stopped.stderr
    resumed = script(out, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert_same_end(two, out)


@pytest.mark.slow
def test_occupied_folder_is_refused_before_another_process_starts(two: Path, script: Script) -> None:
    refused = script(two)
    assert refused.returncode == 2
    assert refused.stderr.count("error: --out") == 1
    assert "Traceback" not in refused.stderr
