"""Ranking metrics that a bootstrap can afford: one sort per class, then every resample at once.

The area under the ROC curve is the Mann-Whitney statistic: the share of (positive, negative) pairs in which
the positive has the higher score, a tie counting one half (Hanley and McNeil, Radiology 143:29-36, 1982).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cmcgns.errors import UserError

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.intp]

_CHUNK_CELLS = 1 << 18  # resamples × rows weighed at once: 2 MB, which stays in the cache and is fastest


@dataclass(frozen=True)
class _RankedClass:
    """One class, sorted: what is left to do once a resample's weights are known."""

    negatives: IntArray  # rows, by rising score
    positives: IntArray  # rows, by rising score
    below: IntArray  # per positive: how many negatives score strictly lower
    not_above: IntArray  # per positive: how many score lower or the same

    def auroc(self, weights: FloatArray) -> FloatArray:
        """Area per resample from weights (n, R); NaN where positives or negatives weigh nothing."""
        lower = np.zeros((len(self.negatives) + 1, weights.shape[1]))
        np.cumsum(weights[self.negatives], axis=0, out=lower[1:])
        positive = weights[self.positives]
        wins = np.einsum("pr,pr->r", positive, lower[self.below])
        ties_too = np.einsum("pr,pr->r", positive, lower[self.not_above])
        pairs = positive.sum(axis=0) * lower[-1]
        area = np.full(weights.shape[1], np.nan)
        np.divide(wins + ties_too, 2 * pairs, out=area, where=pairs > 0)
        return area


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
        self._classes = [_rank(score[:, c], label[:, c]) for c in range(label.shape[1])]

    def auroc(self, weights: npt.ArrayLike) -> FloatArray:
        """Area under the ROC curve of each resample and class.

        Args:
            weights: (R, n), how often each row was drawn; any weights ≥ 0 will do.

        Returns:
            (R, C); NaN where no positive or no negative was drawn.

        Raises:
            UserError: wrong shape, or a negative or missing weight.
        """
        weight = np.asarray(weights)
        if weight.ndim != 2 or weight.shape[1] != self.rows:
            raise UserError(f"weights must be (resamples, {self.rows}), not {weight.shape}")
        if weight.size and not weight.min() >= 0:
            raise UserError("weights must be 0 or more, and none may be NaN")
        area = np.full((len(weight), len(self._classes)), np.nan)
        step = max(1, _CHUNK_CELLS // max(1, self.rows))
        for start in range(0, len(weight), step):
            # Rows first: gathering a row then copies one stretch of memory, and sums run along the resamples.
            part = np.ascontiguousarray(weight[start : start + step].T, dtype=np.float64)
            for c, ranked in enumerate(self._classes):
                area[start : start + step, c] = ranked.auroc(part)
        return area


def auroc(scores: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> FloatArray:
    """Area under the ROC curve per class, exact under ties.

    Args:
        scores: (n, C), higher means more likely.
        labels: (n, C) in {0, 1, NaN}; NaN rows are left out class by class.
        weights: optional (R, n), e.g. how often each of R resamples drew each row.

    Returns:
        (C,), or (R, C) with weights; NaN where a class has no positive or no negative.

    Raises:
        UserError: see :class:`RankedScores`.
    """
    ranked = RankedScores(scores, labels)
    if weights is None:
        weights = np.ones((1, ranked.rows))
        return ranked.auroc(weights).reshape(-1)
    return ranked.auroc(weights)


def mean_auroc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[float, BoolArray]:
    """Mean area over the classes that have one.

    Args:
        scores: (n, C).
        labels: (n, C) in {0, 1, NaN}.

    Returns:
        The mean (NaN if no class counts) and, (C,), which classes counted: print that beside the mean.
    """
    per_class = auroc(scores, labels)
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


def _rank(score: npt.NDArray[np.generic], label: FloatArray) -> _RankedClass:
    order = np.argsort(score, kind="stable")
    negatives, positives = order[label[order] == 0], order[label[order] == 1]
    below = np.searchsorted(score[negatives], score[positives], side="left")
    not_above = np.searchsorted(score[negatives], score[positives], side="right")
    return _RankedClass(negatives, positives, below, not_above)
