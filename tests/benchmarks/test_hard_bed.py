"""The calibration of the hard level prints a mean and every class's AUROC."""

import re
import sys
from pathlib import Path

import pytest

from cmcgns.phantom.hard import HARD_FINDINGS

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.slow
def test_the_supervised_arm_prints_all_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import hard_bed

    words = ["--train", "32", "--val", "40", "--epochs", "1", "--arm", "supervised"]
    monkeypatch.setattr(sys, "argv", ["hard_bed.py", str(tmp_path), *words])
    hard_bed.main()
    loss, figures = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"epoch 1: loss 0\.\d+", loss)
    assert re.match(r"supervised: mean AUROC 0\.\d+ \(", figures)
    assert all(label in figures for label in HARD_FINDINGS)
    assert hard_bed.recipe_of(2, 0).alignment.epochs == 2
