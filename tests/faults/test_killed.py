"""Commands that are killed at any moment of their life and called again leave what undisturbed ones leave."""

import os
from pathlib import Path

import pytest

from support.faults import Undisturbed, command, files_of, moments, run_until_killed, run_whole, timed
from support.training import assert_same_end

KILLS = int(os.environ.get("KILLS", "20"))  # of each command


@pytest.mark.parametrize("part", range(KILLS))
def test_pretrain(part: int, undisturbed: Undisturbed, tmp_path: Path) -> None:
    out, seconds = tmp_path / "run", list(moments(undisturbed.seconds, KILLS, seed=1))[part]
    if run_until_killed(undisturbed.pretrain(out), seconds) != 0:
        done = run_whole(undisturbed.pretrain(out))
        assert done.returncode == 0, done.stderr
    assert_same_end(undisturbed.out, out)
    for name in ("config.yaml", "seen.parquet", "report_encoder.json", "preprocess.json", "left_out.csv", "card.md"):
        assert (out / name).read_bytes() == (undisturbed.out / name).read_bytes(), name
    assert not list(out.rglob(".*"))


def test_pretrain_killed_again_and_again(undisturbed: Undisturbed, tmp_path: Path) -> None:
    """Lives that grow longer, each from where the one before ended."""
    out, lives = tmp_path / "run", 0
    for seconds in moments(undisturbed.seconds * 1.2, 8, seed=2):
        lives += 1
        if run_until_killed(undisturbed.pretrain(out), seconds) == 0:
            break
    assert lives > 2
    done = run_whole(undisturbed.pretrain(out))
    assert done.returncode == 0, done.stderr
    assert_same_end(undisturbed.out, out)


def test_prepare(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    timed(command("phantom", "tree", "nih", "--out", tree, "--studies", 40, "--size", 64))

    def prepare(out: Path) -> list[str]:
        return command("prepare", "nih", "--root", tree, "--out", out, "--size", 48, "--workers", 2)

    seconds = timed(prepare(tmp_path / "whole"))
    expected = {name: content for name, content in files_of(tmp_path / "whole").items() if kept(name)}
    for number, moment in enumerate(moments(seconds, KILLS, seed=3)):
        out = tmp_path / f"killed-{number}"
        run_until_killed(prepare(out), moment)
        done = run_whole(prepare(out))
        assert done.returncode == 0, done.stderr
        assert {name: content for name, content in files_of(out).items() if kept(name)} == expected


def kept(name: str) -> bool:
    """Whether a file of a prepared folder is a result: no page with times, no note of how far the work has come."""
    return name == "manifest.parquet" or name.startswith(("images/", "masks/"))


def test_evaluate(undisturbed: Undisturbed, tmp_path: Path) -> None:
    def evaluate(out: Path) -> list[str]:
        asked = ["--protocol", "knn/v1,retrieval/v1", "--data", undisturbed.data, "--out", out, "--allow-leakage"]
        return command("evaluate", undisturbed.out, *asked)

    seconds = timed(evaluate(tmp_path / "whole"))
    expected = (tmp_path / "whole" / "results.jsonl").read_bytes()
    for number, moment in enumerate(moments(seconds, KILLS, seed=4)):
        out = tmp_path / f"killed-{number}"
        run_until_killed(evaluate(out), moment)
        done = run_whole(evaluate(out))
        assert done.returncode == 0, done.stderr
        assert (out / "results.jsonl").read_bytes() == expected
