"""Judging that is killed at any moment and called again leaves what it leaves undisturbed, bit for bit."""

import json
import os
from pathlib import Path

import pytest

from support.evaluation import write_set
from support.faults import command, moments, run_until_killed, run_whole, timed

KILLS = int(os.environ.get("KILLS", "6"))
SMALL = ["--image-size=32", "--seeds=1", "--fractions=50,100", "--device=cpu", "--set=settings.epochs=2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judged") / "data"
    return write_set(folder, counts=(40, 20, 40), mask_path=[f"images/{number}.png" for number in range(100)])


def evaluate(encoder: str, protocol: str, data: Path, out: Path) -> list[str]:
    more = SMALL if protocol == "segmentation/v1" else SMALL[:-1]
    return command("evaluate", encoder, "--protocol", protocol, "--data", data, "--out", out, *more)


def is_of_the_process(fact: str) -> bool:
    """Times, and what was held in memory: no result."""
    return "seconds" in fact or fact == "images_with_maps_kept"


def left(folder: Path) -> dict[str, object]:
    """Predictions byte by byte and everything that is said of them but times."""
    found: dict[str, object] = {}
    for file in sorted(folder.rglob("*")):
        name = str(file.relative_to(folder))
        if file.suffix == ".npz" or file.name in ("results.jsonl", "results.csv", "encoder.json", "protocol.json"):
            found[name] = file.read_bytes()
        elif file.parent.parent.name == "cells" and file.suffix == ".json":
            content = json.loads(file.read_text())
            content["facts"] = {key: value for key, value in content["facts"].items() if not is_of_the_process(key)}
            found[name] = content
    assert not [name for name in found if name.startswith(".")]
    return found


@pytest.mark.parametrize("protocol", ["knn/v1,linear/v1", "segmentation/v1"])
def test_evaluate(protocol: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CMCGNS_CACHE", str(tmp_path / "cache"))
    seconds = timed(evaluate("random:resnet18", protocol, data, tmp_path / "whole"))
    expected = left(tmp_path / "whole")
    assert expected
    for number, moment in enumerate(moments(seconds, KILLS, seed=1)):
        out = tmp_path / f"killed-{number}"
        monkeypatch.setenv("CMCGNS_CACHE", str(tmp_path / f"cache-{number}"))
        run_until_killed(evaluate("random:resnet18", protocol, data, out), moment)
        done = run_whole(evaluate("random:resnet18", protocol, data, out))
        assert done.returncode == 0, done.stderr + done.stdout
        assert left(out) == expected


def test_compare_and_figures(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CMCGNS_CACHE", str(tmp_path / "cache"))
    for encoder in ("random:resnet18", "random:resnet34"):
        timed(evaluate(encoder, "knn/v1,linear/v1", data, tmp_path / encoder[7:]))
    first, second, out = tmp_path / "resnet18", tmp_path / "resnet34", tmp_path / "comparison"
    seconds = timed(command("compare", first, second, "--out", out))
    names = ("comparison.jsonl", "comparison.csv", "comparison.md")
    expected = {name: (out / name).read_bytes() for name in names}
    whole = left(first)
    for number, moment in enumerate(moments(seconds, KILLS, seed=2)):
        again = tmp_path / f"comparison-{number}"
        run_until_killed(command("compare", first, second, "--out", again), moment)
        done = run_whole(command("compare", first, second, "--out", again))
        assert done.returncode == 0, done.stderr
        assert {name: (again / name).read_bytes() for name in names} == expected
        run_until_killed(command("figures", first), moment)
        done = run_whole(command("figures", first))
        assert done.returncode == 0, done.stderr
        assert left(first) == whole
