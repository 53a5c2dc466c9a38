"""k nearest neighbours: what frozen features say without any training.

Wu et al., CVPR 2018, section 3.4, as in Caron et al., ICCV 2021 (DINO): cosine similarity of pooled features, and a
vote of the k nearest training images with weights exp(similarity / temperature). Nothing is chosen on validation.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cmcgns.evaluation.contract import Job, Predictions
from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.protocols import Cell
from cmcgns.evaluation.task_settings.learned import KnnSettings
from cmcgns.evaluation.tasks.linear.task import check_rows, features_of, predictions
from cmcgns.metrics.classification import binary_measures
from cmcgns.metrics.measure import Measures
from cmcgns.metrics.ranking import FloatArray

_CELLS = 1 << 24  # similarities held at once: 64 MB


class Knn:
    """Area under the ROC curve of a vote of the nearest training images."""

    def lacks(self, data: TaskData, encoder: FrozenEncoder) -> str:
        """Why this task cannot be done; empty if it can."""
        del encoder  # any will do
        return data.lacks_labels()

    def run(self, job: Job) -> Iterator[tuple[Cell, Predictions]]:
        """Let the training images of every cell vote."""
        settings = job.protocol.settings_as(KnnSettings)
        train, test = (features_of(job, part) for part in ("train", "test"))
        for number, cell in enumerate(job.cells):
            job.progress(f"{cell.name}: nearest neighbours", number / len(job.cells))
            rows = job.data.fraction_rows(cell)
            check_rows(job, cell, rows)
            labels = job.data.train.labels[rows]
            scores = vote(train[rows], labels, test, settings.k, settings.temperature, job.encoder.device)
            yield cell, predictions(job, rows, scores, {})

    def measures(self, predictions: Predictions) -> Measures:
        """Figures of one cell."""
        return binary_measures(predictions.arrays)


def vote(
    train: npt.NDArray[np.floating],
    labels: FloatArray,
    test: npt.NDArray[np.floating],
    k: int,
    temperature: float,
    device: torch.device | str = "cpu",
) -> FloatArray:
    """Weighted share of positives among the nearest images that have the label.

    Args:
        train: (n, F) features.
        labels: (n, C) 1, 0 or NaN: an image without a class's label is no neighbour for that class.
        test: (m, F) features.
        k: neighbours.
        temperature: of the weights.
        device: where to compute.

    Returns:
        (m, C) in [0, 1]; 0.5 for a class without any label.
    """
    known = ~np.isnan(labels)
    patterns, pattern_of = np.unique(known, axis=1, return_inverse=True)
    scores = np.full((len(test), labels.shape[1]), 0.5)
    for number, pattern in enumerate(patterns.T):  # classes that the same images have share one search
        classes, rows = np.flatnonzero(pattern_of.reshape(-1) == number), np.flatnonzero(pattern)
        if len(rows) == 0:
            continue
        neighbours = _unit(train[rows], device)
        target = torch.from_numpy(labels[rows][:, classes]).to(device)
        step = max(1, _CELLS // len(rows))
        for start in range(0, len(test), step):
            near, which = (_unit(test[start : start + step], device) @ neighbours.T).topk(min(k, len(rows)), dim=1)
            weights = ((near - near[:, :1]).double() / temperature).exp()  # relative to the nearest: no overflow
            share = torch.einsum("mk,mkc->mc", weights, target[which]) / weights.sum(1, keepdim=True)
            scores[start : start + step, classes] = share.cpu().numpy()
    return scores


def _unit(features: npt.NDArray[np.floating], device: torch.device | str) -> Tensor:
    return torch.nn.functional.normalize(torch.from_numpy(np.array(features)).float().to(device), dim=1)


TASK = Knn()
