"""The GPU benchmark at toy sizes on a CPU, where every part works; and what has to hold on a GPU."""

import importlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from cmcgns.objectives.local_image import Predictor

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))
gpu, parts, golden = (importlib.import_module(name) for name in ("gpu", "gpu_parts", "golden"))

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def check_step(figures: dict[str, Any], stage: str) -> None:
    """Figures of a whole step beside its encoders."""
    assert (figures["stage"], figures["precision"]) == (stage, "bf16-mixed")
    assert figures["ratio"] == pytest.approx(figures["whole_seconds"] / figures["encoders_seconds"])
    assert figures["whole_pairs_per_second"] > 0
    assert figures["whole_memory_mib"] > 0
    assert figures["loss"] > 0


def test_every_part_works_at_toy_sizes(tmp_path: Path) -> None:
    """One test, because the call takes half a minute."""
    result = call("--device", "cpu", "--tiny", "--out", str(tmp_path / "gpu.json"))
    record = json.loads(result.stdout)  # and nothing else stands there
    assert json.loads((tmp_path / "gpu.json").read_text()) == record
    found = record["parts"]
    assert list(found) == list(gpu.PARTS)
    assert found["tests"]["status"] == "skipped"
    assert found["machine"]["torch"] == importlib.metadata.version("torch")
    for name in ("resnet50", "vit"):
        for stage in ("alignment", "reconstruction"):
            check_step(found[name][stage], stage)
    assert found["golden"]["golden"]["compared"] == 82
    assert found["resume"]["tensors"] > 100
    assert 3 <= int(found["resume"]["stopped_at"].removeprefix("step-")) < 20
    assert record["failed"] == [], found
    assert found["demo"]["steps"] == 6
    assert result.returncode == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_what_fails_is_recorded_and_without_a_gpu_the_rest_is_skipped(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    assert gpu.main(["--tiny", "--parts", "golden"]) == 1
    record = json.loads(capfd.readouterr().out)
    assert record["failed"] == ["machine"]
    machine, rest = record["parts"]["machine"], record["parts"]["golden"]
    assert machine["wrong"][0] == machine["traceback"][-1]
    assert "NVIDIA" in machine["wrong"][0]
    assert rest == {"status": "skipped", "reason": "the machine will not do"}


def test_part_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    found = gpu.attempt("demo", "cpu", True, tmp_path, 0.2)
    assert (found["status"], found["wrong"]) == ("failed", ["not done after 0 s"])
    assert found["seconds"] < 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--parts", "golden,speed"), "no part is called speed"),
        (("--device", "cpu"), "--device cpu needs --tiny"),
    ],
)
def test_wrong_arguments_are_refused(arguments: tuple[str, ...], message: str) -> None:
    result = call(*arguments)
    assert result.returncode == 2
    assert message in result.stderr


def test_waits_are_counted_by_place() -> None:
    modes = []

    def step() -> None:
        for _ in range(2):
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("something else", stacklevel=1)

    found = parts.synchronisations(step, modes.append)
    assert list(found.values()) == [2]
    assert next(iter(found)).startswith("test_gpu_benchmark.py:")
    assert modes == ["warn", "default"]


def test_wait_is_placed_at_the_innermost_line_of_the_package() -> None:
    def wait(module: Any, *_: Any) -> None:
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)

    predictor = Predictor(8)
    predictor.output.register_forward_hook(wait)
    (place,) = parts.synchronisations(lambda: predictor(torch.zeros(1, 8)), lambda _: None)
    assert re.fullmatch(r"test_gpu_benchmark\.py:\d+ < objectives/local_image\.py:\d+", place)


def test_deviation_is_in_units_of_the_tolerance() -> None:
    expected = torch.tensor([0.0, 1.0])
    allowed = torch.tensor([1e-5, 1e-5 + 1e-4])
    right = golden.Comparison("right", expected + 0.5 * allowed, expected, 1e-5)
    wrong = golden.Comparison("wrong", expected - 3 * allowed, expected, 1e-5)
    nothing = golden.Comparison("nothing", expected * torch.nan, expected, 1e-5)
    assert right.deviation == pytest.approx(0.5, rel=1e-2)
    assert wrong.deviation == pytest.approx(3, rel=1e-2)
    found = golden.summary([right, wrong, nothing])
    assert (found["compared"], found["furthest"]) == (3, "nothing")
    assert [line.partition(":")[0] for line in found["wrong"]] == ["wrong", "nothing"]


def test_golden_values_on_the_cpu() -> None:
    found = golden.agreement("cpu")
    assert found["golden"]["compared"] == 82
    assert found["golden"]["wrong"] == []
    assert found["cpu"]["deviation"] == 0


@pytest.mark.gpu
@on_gpu
def test_golden_values_on_a_gpu() -> None:
    found = golden.agreement("cuda")
    assert found["golden"]["wrong"] == []
    assert found["cpu"]["wrong"] == []


@pytest.mark.gpu
@on_gpu
def test_host_waits_for_nothing_in_a_step() -> None:
    found = parts.resnet50(parts.Options("cuda", tiny=True))
    assert found["alignment"]["synchronisations"] == found["reconstruction"]["synchronisations"] == {}


@pytest.mark.gpu
@on_gpu
def test_run_in_bf16_is_finite_on_a_gpu() -> None:
    assert parts.demo(parts.Options("cuda", tiny=True))["wrong"] == []
