"""Ranking metrics that a bootstrap can afford: one sort per class, then every resample at once.

The area under the ROC curve is the Mann-Whitney statistic: the share of (positive, negative) pairs in which
the positive has the higher score, a tie counting one half (Hanley and McNeil, Radiology 143:29-36, 1982).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cmcgns.common.errors import UserError
from cmcgns.metrics.ranked_class import RankedClass, rank_class

if TYPE_CHECKING:
    from torch import Tensor

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.intp]

_CHUNK_CELLS = 1 << 24  # resamples × rows weighed at once; at least 64 resamples, so that rows stay long


class RankedScores:
    """Scores of a test set, sorted once per class, to be weighted by any number of resamples.

    Args:
        scores: (n, C), higher means more likely; any monotone scale.
        labels: (n, C) in {0, 1, NaN}; a NaN leaves the row out for that class alone.

    Raises:
        UserError: shapes differ, a label is none of 0, 1, NaN, or a labelled score is NaN.
    """

    def __init__(self, scores: npt.ArrayLike, labels: npt.ArrayLike) -> None:
        score, label = np.asarray(scores), check_labels(labels)
        if score.shape != label.shape:
            raise UserError(f"scores {score.shape} and labels {label.shape} must have one shape, (n, C)")
        undefined = np.isnan(score) & ~np.isnan(label)
        if undefined.any():
            row, column = np.argwhere(undefined)[0]
            raise UserError(f"the score of row {row}, class {column} is NaN although it has a label")
        self.rows = len(label)
        self._classes = [rank_class(score[:, c], label[:, c]) for c in range(label.shape[1])]

    def auroc(self, weights: npt.ArrayLike) -> FloatArray:
        """Area under the ROC curve of each resample and class.

        Args:
            weights: (R, n), how often each row was drawn; any weights ≥ 0 will do.

        Returns:
            (R, C); NaN where no positive or no negative was drawn.

        Raises:
            UserError: wrong shape, or a negative or missing weight.
        """
        return self._of_each_class(weights, RankedClass.auroc)

    def average_precision(self, weights: npt.ArrayLike) -> FloatArray:
        """Average precision of each resample and class: mean precision at the score of each positive.

        Rows of one score are one step, so their order does not matter; nothing is interpolated. Equal to
        scikit-learn's `average_precision_score` where there is a positive.

        Args:
            weights: (R, n), how often each row was drawn; any weights ≥ 0 will do.

        Returns:
            (R, C); NaN where no positive was drawn.

        Raises:
            UserError: wrong shape, or a negative or missing weight.
        """
        return self._of_each_class(weights, RankedClass.average_precision)

    def _of_each_class(self, weights: npt.ArrayLike, figure: Callable[[RankedClass, Tensor], Tensor]) -> FloatArray:
        weight = np.asarray(weights)
        if weight.ndim != 2 or weight.shape[1] != self.rows:
            raise UserError(f"weights must be (resamples, {self.rows}), not {weight.shape}")
        if weight.size and not weight.min() >= 0:
            raise UserError("weights must be 0 or more, and none may be NaN")
        result = np.full((len(weight), len(self._classes)), np.nan)
        step = min(2048, max(64, _CHUNK_CELLS // self.rows))
        with _threads(len(self._classes)) as pool:
            for start in range(0, len(weight), step):
                part = _table(weight[start : start + step])
                columns = pool.map(lambda ranked, part=part: figure(ranked, part).numpy(), self._classes)
                result[start : start + step] = np.stack(list(columns), axis=1)
        return result


def mean_auroc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[float, BoolArray]:
    """Mean area over the classes that have one.

    Args:
        scores: (n, C).
        labels: (n, C) in {0, 1, NaN}.

    Returns:
        The mean (NaN if no class counts) and, (C,), which classes counted: print that beside the mean.
    """
    ranked = RankedScores(scores, labels)
    per_class = ranked.auroc(np.ones((1, ranked.rows)))[0]
    return float(mean_over_classes(per_class)), ~np.isnan(per_class)


def mean_over_classes(per_class: FloatArray) -> FloatArray:
    """Mean over the last axis without its NaN entries; NaN where nothing is left. (..., C) -> (...)."""
    defined = ~np.isnan(per_class)
    total = np.where(defined, per_class, 0.0).sum(axis=-1)
    count = defined.sum(axis=-1)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def check_labels(labels: npt.ArrayLike) -> FloatArray:
    """Labels as float64 (n, C); refused unless each is 0, 1 or NaN and there is a row and a class."""
    label = np.asarray(labels, dtype=np.float64)
    if label.ndim != 2 or label.size == 0:
        raise UserError(f"labels must be (n, C) with at least one row and class, not {label.shape}")
    wrong = ~(np.isnan(label) | (label == 0) | (label == 1))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        found = label[row, column]
        raise UserError(f"label {found:g} in row {row}, class {column}: only 0, 1 and NaN are labels")
    return label


def _table(weight: npt.NDArray[np.generic]) -> Tensor:
    """Weights (R, n) as a table (n, R): picking a row then reads one stretch of memory.

    Counts are summed in single precision as long as that is exact, which is below 2^24.
    """
    import torch

    exact = np.issubdtype(weight.dtype, np.integer) and int(weight.max(initial=0)) * weight.shape[1] < 1 << 24
    return torch.from_numpy(np.ascontiguousarray(weight.T, dtype=np.float32 if exact else np.float64))


@contextmanager
def _threads(classes: int) -> Iterator[ThreadPoolExecutor]:
    """As many workers as torch may use, one class each.

    The threads of torch itself are off meanwhile: waiting for each other after every small operation, they can take
    longer than one thread alone, and far longer on a machine that is busy.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(max(1, min(before, classes))) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)
