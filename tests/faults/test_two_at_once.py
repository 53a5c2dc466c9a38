"""Two processes that are told to write into one folder: one does, the other is told of it and changes nothing."""

import os
import subprocess
from pathlib import Path

from support.faults import Undisturbed, command, run_whole
from support.training import assert_same_end


def start(arguments: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(arguments, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def one_wins(arguments: list[str]) -> None:
    """Start a command twice at once; one ends well, the other with a message."""
    both = [start(arguments), start(arguments)]
    errors = [process.communicate(timeout=300)[1] for process in both]
    codes = [process.returncode for process in both]
    assert sorted(codes) == [0, 2], errors
    refused = errors[codes.index(2)]
    assert "Traceback" not in refused
    assert f"(process {both[codes.index(0)].pid} on " in refused


def test_pretrain(undisturbed: Undisturbed, tmp_path: Path) -> None:
    for _ in range(3):
        out = tmp_path / "run"
        one_wins(undisturbed.pretrain(out))
        assert_same_end(undisturbed.out, out)
        out.rename(tmp_path / f"run-{_}")


def test_evaluate(undisturbed: Undisturbed, tmp_path: Path) -> None:
    asked = ["--protocol", "knn/v1", "--data", undisturbed.data, "--out", tmp_path / "out", "--allow-leakage"]
    one_wins(command("evaluate", undisturbed.out, *asked))
    again = run_whole(command("evaluate", undisturbed.out, *asked))
    assert again.returncode == 0, again.stderr
