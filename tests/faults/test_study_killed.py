"""A study that is killed at any moment and called again ends as one that nothing disturbed, and repeats nothing."""

import os
from pathlib import Path

from support.faults import Undisturbed, command, moments, run_until_killed, run_whole, timed
from support.study import results_of, tables_of, tiny_study

KILLS = int(os.environ.get("KILLS", "20"))


def stamps(out: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in (out / "results").glob("*.json")}


def test_study(undisturbed: Undisturbed, tmp_path: Path) -> None:
    study = tiny_study(tmp_path, undisturbed.data)

    def do(out: Path) -> list[str]:
        return command("study", study, "--out", out, "--accelerator=cpu")

    seconds = timed(do(tmp_path / "whole"))
    expected, table = results_of(tmp_path / "whole"), tables_of(tmp_path / "whole")
    for number, moment in enumerate(moments(seconds, KILLS, seed=6)):
        out = tmp_path / f"killed-{number}"
        run_until_killed(do(out), moment)
        before = stamps(out)
        done = run_whole(do(out))
        assert done.returncode == 0, done.stderr
        assert before.items() <= stamps(out).items()
        assert results_of(out) == expected
        assert tables_of(out) == table
        assert not [path for path in (out / "cells").rglob(".*") if path.is_file()]
