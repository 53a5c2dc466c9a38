"""Ends of the scale on synthetic studies: an encoder that knows the truth scores 1, one that knows nothing 0.5.

Whether intervals cover 0.5 is a matter of many draws (test_coverage.py): a single one misses it once in twenty.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.protocols import load_protocol
from cmcgns.evaluation.run import EvaluateOptions
from cmcgns.evaluation.select import choose
from cmcgns.phantom import write_dataset
from cmcgns.reporting.evaluation.command import judge_encoder
from support.evaluation import tiny_encoder


class Knowing(FrozenEncoder):
    """Looks every picture up in the drawings' own truth."""

    truth: dict[bytes, torch.Tensor]

    def pooled(self, images: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.truth[image.numpy().tobytes()] for image in images])


def knowing(data: Path, knows: bool) -> Knowing:
    encoder = tiny_encoder("oracle" if knows else "random")
    encoder.__class__ = Knowing
    studies = TaskData(load_protocol("linear/v1"), data, encoder.image_size, encoder.resize)
    rng, truth = np.random.default_rng(0), {}
    for part in (studies.train, studies.val, studies.test):
        values = part.labels * 2 - 1 if knows else rng.normal(size=part.labels.shape)
        for image, row in zip(encoder.tensors(part.pixels), values, strict=True):
            truth[image.numpy().tobytes()] = torch.tensor(row, dtype=torch.float32)
    encoder.truth, encoder.width = truth, len(studies.label_names)
    return encoder


@pytest.mark.parametrize(("knows", "expected", "within"), [(True, 1.0, 0.005), (False, 0.5, 0.08)])
def test_linear_and_nearest_neighbours(
    knows: bool, expected: float, within: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(tmp_path / "data", {"train": 300, "val": 80, "test": 200}, seed=5, size=32, workers=1)
    pairs = choose("linear,knn", [tmp_path / "data"])
    options = EvaluateOptions(fractions=(100.0,), seeds=1)
    encoder = knowing(tmp_path / "data", knows)
    judgement = judge_encoder(encoder, pairs, tmp_path / "out", options, Console(quiet=True))
    assert judgement.outcome.failures == []
    rows = [row for row in judgement.rows if row.primary and not row.group]
    assert [row.task for row in rows] == ["knn", "linear"]
    for row in rows:
        assert row.value == pytest.approx(expected, abs=within)
