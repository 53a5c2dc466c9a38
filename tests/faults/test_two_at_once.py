"""Two processes at once: of one folder the second is told and changes nothing, of one cache both have the use."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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


CONTAINER = ["unshare", "--pid", "--fork", "--mount-proc"]  # each has a process 1 of its own


def containers_work() -> bool:
    if shutil.which("unshare") is None:
        return False
    numbers = [*CONTAINER, sys.executable, "-c", "import os; print(os.getpid())"]
    return subprocess.run(numbers, capture_output=True, text=True, check=False).stdout == "1\n"


@pytest.mark.parametrize("around", [[], CONTAINER], ids=["processes", "containers with equal process numbers"])
def test_one_cache(
    around: list[str], undisturbed: Undisturbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if around and not containers_work():
        pytest.skip("no namespaces of processes can be made here")

    def evaluate(out: Path) -> list[str]:
        asked = ["--protocol", "knn/v1,linear/v1", "--data", undisturbed.data, "--out", out, "--allow-leakage"]
        return [*around, *command("evaluate", undisturbed.out, *asked)]

    monkeypatch.setenv("CMCGNS_CACHE", str(tmp_path / "alone"))
    alone = run_whole(evaluate(tmp_path / "whole"))
    assert alone.returncode == 0, alone.stderr
    for attempt in range(3):
        monkeypatch.setenv("CMCGNS_CACHE", str(tmp_path / f"shared-{attempt}"))
        folders = [tmp_path / f"{attempt}-{number}" for number in range(3)]
        together = [start(evaluate(folder)) for folder in folders]
        for process, folder in zip(together, folders, strict=True):
            errors = process.communicate(timeout=300)[1]
            assert process.returncode == 0, errors
            assert (folder / "results.jsonl").read_bytes() == (tmp_path / "whole" / "results.jsonl").read_bytes()
        assert not list((tmp_path / f"shared-{attempt}").rglob("*.tmp"))
