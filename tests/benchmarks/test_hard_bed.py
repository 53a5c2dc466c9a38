"""The calibration of the hard level: what a patch shows, and a mean and every class's AUROC in print."""

import re
import sys
from pathlib import Path

import pytest
import torch

from cmcgns.phantom.hard import HARD_FINDINGS

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def hard_bed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import hard_bed

    return hard_bed


def test_a_patch_shows_what_covers_a_quarter_of_it_or_has_a_quarter_of_it(hard_bed) -> None:
    layers = torch.zeros(1, 8, 8, dtype=torch.int16)
    layers[0, 0, 3:5] = 0b01  # two pixels, a patch each
    layers[0, 4:, :5] = 0b10  # a patch, and a quarter of the next one
    layers[0, 0, 0] = 0b10  # one pixel of 21
    shown = hard_bed.patch_labels(layers, 2, 4)
    assert shown.shape == (1, 4, 2)
    assert shown[0, :, 0].tolist() == [1, 1, 0, 0]
    assert shown[0, :, 1].tolist() == [0, 0, 1, 1]
    assert not hard_bed.patch_labels(torch.zeros(1, 8, 8, dtype=torch.int16), 2, 4).any()


@pytest.mark.slow
def test_the_supervised_arm_prints_all_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], hard_bed
) -> None:
    words = ["--train", "32", "--val", "40", "--epochs", "1", "--arm", "supervised"]
    monkeypatch.setattr(sys, "argv", ["hard_bed.py", str(tmp_path), *words])
    hard_bed.main()
    loss, figures = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"epoch 1: loss \d\.\d+, \d+ s of CPU time", loss)
    assert re.match(r"supervised: mean AUROC 0\.\d+ \(", figures)
    assert all(label in figures for label in HARD_FINDINGS)
    assert hard_bed.recipe_of(["alignment.epochs=2"], 0).alignment.epochs == 2
