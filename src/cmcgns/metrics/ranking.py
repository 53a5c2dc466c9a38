"""Ranking metrics that a bootstrap can afford: one sort per class, then every resample at once.

The area under the ROC curve is the Mann-Whitney statistic: the share of (positive, negative) pairs in which
the positive has the higher score, a tie counting one half (Hanley and McNeil, Radiology 143:29-36, 1982).

A resample is a column of weights. The sorted rows of a class are cut into steps; what a figure needs is the weight of
the negatives and of the positives in each step, summed up step by step. Sums of rows picked from a table are what an
embedding bag computes, and fast; everything after it is done in blocks of steps that fit into the processor's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from cmcgns.common.errors import UserError

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.intp]

_BLOCK_CELLS = 1 << 17  # steps × resamples handled at once: 0.5 MB, which stays in the cache
_CHUNK_CELLS = 1 << 24  # resamples × rows weighed at once; at least 64 resamples, so that rows stay long


class RankedScores:
    """Scores of a test set, sorted once per class, to be weighted by any number of resamples.

    Args:
        scores: (n, C), higher means more likely; any monotone scale.
        labels: (n, C) in {0, 1, NaN}; a NaN leaves the row out for that class alone.
        each: successive rows that share a weight, as the patches of an image: weights are then (R, n / each).

    Raises:
        UserError: shapes differ, a label is none of 0, 1, NaN, or a labelled score is NaN.
    """

    def __init__(self, scores: npt.ArrayLike, labels: npt.ArrayLike, each: int = 1) -> None:
        score, label = np.asarray(scores), check_labels(labels)
        if score.shape != label.shape:
            raise UserError(f"scores {score.shape} and labels {label.shape} must have one shape, (n, C)")
        undefined = np.isnan(score) & ~np.isnan(label)
        if undefined.any():
            row, column = np.argwhere(undefined)[0]
            raise UserError(f"the score of row {row}, class {column} is NaN although it has a label")
        self.rows, self._each = len(label) // each, each
        self._classes = [RankedClass(score[:, c], label[:, c], each) for c in range(label.shape[1])]

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
                part = _table(weight[start : start + step], self._each)
                columns = pool.map(lambda ranked, part=part: figure(ranked, part).numpy(), self._classes)
                result[start : start + step] = np.stack(list(columns), axis=1)
        return result


class Steps:
    """Rows of the two kinds, each list cut into the same K steps.

    Args:
        negatives: row numbers, in the order of the steps.
        negative_starts: (K + 1,) places in `negatives`.
        positives: row numbers, in the order of the steps.
        positive_starts: (K + 1,) places in `positives`.
        each: successive rows that share a weight.
    """

    def __init__(
        self,
        negatives: IntArray,
        negative_starts: IntArray,
        positives: IntArray,
        positive_starts: IntArray,
        each: int = 1,
    ) -> None:
        kinds = ((negatives // each, negative_starts), (positives // each, positive_starts))
        self._kinds = [[torch.from_numpy(np.array(part, dtype=np.int64)) for part in kind] for kind in kinds]

    def sums(self, weights: Tensor) -> Iterator[list[Tensor]]:
        """Weight of the negatives and of the positives of each step, (steps, R) twice, block by block."""
        steps, block = len(self._kinds[0][1]) - 1, max(1, _BLOCK_CELLS // weights.shape[1])
        for start in range(0, steps, block):
            parts = []
            for rows, starts in self._kinds:
                ends = starts[start : start + block + 1]
                picked = rows[ends[0] : ends[-1]]
                parts.append(functional.embedding_bag(picked, weights, ends[:-1] - ends[0], mode="sum"))
            yield parts


class RankedClass:
    """The labelled rows of one class, sorted.

    Args:
        score: (n,), not NaN where there is a label.
        label: (n,) in {0, 1, NaN}.
        each: successive rows that share a weight.
    """

    def __init__(self, score: npt.NDArray[np.generic], label: FloatArray, each: int = 1) -> None:
        known = np.flatnonzero(~np.isnan(label))
        order = known[np.argsort(score[known], kind="stable")]
        negatives, positives = order[label[order] == 0], order[label[order] == 1]
        self._roc = _roc_steps(score, negatives, positives, each)
        self._precision = _precision_steps(score, negatives, positives, each)

    def auroc(self, weights: Tensor) -> Tensor:
        """(R,) float64 area from weights (n, R); NaN where positives or negatives weigh nothing."""
        passed, twice_pairs_won, twice_positives = torch.zeros(3, weights.shape[1], dtype=torch.float64)
        for negatives, positives in self._roc.sums(weights):
            negatives[0] += passed
            lower = negatives.cumsum(0)
            passed = lower[-1].double()
            wide = positives.double()
            twice_pairs_won += (wide * lower).sum(0)
            twice_positives += wide.sum(0)
        return _ratio(twice_pairs_won, twice_positives * passed)

    def average_precision(self, weights: Tensor) -> Tensor:
        """(R,) float64 average precision from weights (n, R); NaN where positives weigh nothing."""
        false, true, total = torch.zeros(3, weights.shape[1], dtype=torch.float64)
        for negatives, positives in self._precision.sums(weights):
            false_alarms, hits = false + negatives.double().cumsum(0), true + positives.double().cumsum(0)
            false, true = false_alarms[-1], hits[-1]
            found = false_alarms + hits
            # Nothing found yet: no hits either, and 0 / 1 is the 0 that it adds.
            total += (positives * hits / found.masked_fill_(found == 0, 1)).sum(0)
        return _ratio(total, true)


def _roc_steps(score: npt.NDArray[np.generic], negatives: IntArray, positives: IntArray, each: int) -> Steps:
    """Steps by rising score.

    A step ends where a positive's score begins or ends; a positive stands in the step at whose end the negatives
    below it have been passed, and once more where those of its own score have.
    """
    below = np.searchsorted(score[negatives], score[positives], side="left")
    not_above = np.searchsorted(score[negatives], score[positives], side="right")
    ends, twice = np.concatenate([below, not_above]), np.concatenate([positives, positives])
    order = np.argsort(ends, kind="stable")
    distinct = np.unique(ends)
    starts = np.searchsorted(ends[order], distinct)
    # One step more, without a positive, for the negatives above the highest positive: they count in the total.
    return Steps(
        negatives, np.r_[0, distinct, len(negatives)], twice[order], np.r_[starts, len(twice), len(twice)], each
    )


def _precision_steps(score: npt.NDArray[np.generic], negatives: IntArray, positives: IntArray, each: int) -> Steps:
    """Steps by falling score, one for each score that a positive has."""
    distinct = np.unique(score[positives])
    below = np.searchsorted(score[negatives], distinct, side="left")[::-1]
    lower = np.searchsorted(score[positives], distinct, side="left")[::-1]
    starts = np.r_[0, len(negatives) - below], np.r_[0, len(positives) - lower]
    return Steps(negatives[::-1], starts[0], positives[::-1], starts[1], each)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return (part / whole).masked_fill_(whole <= 0, float("nan"))


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


def _table(weight: npt.NDArray[np.generic], each: int) -> Tensor:
    """Weights (R, n) as a table (n, R): picking a row then reads one stretch of memory.

    Counts are summed in single precision as long as that is exact, which is below 2^24.
    """
    exact = np.issubdtype(weight.dtype, np.integer) and int(weight.max(initial=0)) * weight.shape[1] * each < 1 << 24
    return torch.from_numpy(np.ascontiguousarray(weight.T, dtype=np.float32 if exact else np.float64))


@contextmanager
def _threads(classes: int) -> Iterator[ThreadPoolExecutor]:
    """As many workers as torch may use, one class each.

    The threads of torch itself are off meanwhile: waiting for each other after every small operation, they can take
    longer than one thread alone, and far longer on a machine that is busy.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(max(1, min(before, classes))) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)
