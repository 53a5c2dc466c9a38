"""One class, sorted by score: ranking figures of many resamples from one pass over the sorted rows.

A resample is a column of weights. The sorted rows are cut into steps; what a figure needs is the weight of the
negatives and of the positives in each step, summed up step by step. Sums of rows picked from a table are what an
embedding bag computes, and fast; everything after it is done in blocks of steps that fit into the processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK_CELLS = 1 << 17  # steps × resamples handled at once: 0.5 MB, which stays in the cache


@dataclass(frozen=True)
class Steps:
    """Rows of the two kinds, each list cut into the same K steps.

    Attributes:
        negatives: row numbers, in the order of the steps.
        negative_starts: (K + 1,) places in `negatives`.
        positives: row numbers, in the order of the steps.
        positive_starts: (K + 1,) places in `positives`.
    """

    negatives: Tensor
    negative_starts: Tensor
    positives: Tensor
    positive_starts: Tensor

    def sums(self, weights: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Weight of the negatives and of the positives of each step, (steps, R) twice, block by block."""
        steps, block = len(self.negative_starts) - 1, max(1, _BLOCK_CELLS // weights.shape[1])
        for start in range(0, steps, block):
            end = min(steps, start + block)
            yield (
                _bags(self.negatives, self.negative_starts[start : end + 1], weights),
                _bags(self.positives, self.positive_starts[start : end + 1], weights),
            )


@dataclass(frozen=True)
class RankedClass:
    """The labelled rows of one class.

    Attributes:
        roc: steps by rising score. A step ends where a positive's score begins or ends; a positive stands in the step
            at whose end the negatives below it have been passed, and once more where those of its own score have.
        precision: steps by falling score, one for each score that a positive has.
    """

    roc: Steps | None
    precision: Steps | None

    def auroc(self, weights: Tensor) -> Tensor:
        """(R,) float64 area from weights (n, R); NaN where positives or negatives weigh nothing."""
        if self.roc is None:
            return _nan(weights)
        passed, twice_pairs_won, twice_positives = _zeros(weights), _zeros(weights), _zeros(weights)
        for negatives, positives in self.roc.sums(weights):
            negatives[0] += passed
            lower = negatives.cumsum(0)
            passed = lower[-1].double()
            wide = positives.double()
            twice_pairs_won += (wide * lower).sum(0)
            twice_positives += wide.sum(0)
        return _ratio(twice_pairs_won, twice_positives * passed)

    def average_precision(self, weights: Tensor) -> Tensor:
        """(R,) float64 average precision from weights (n, R); NaN where positives weigh nothing."""
        if self.precision is None:
            return _nan(weights)
        false, true, total = _zeros(weights), _zeros(weights), _zeros(weights)
        for negatives, positives in self.precision.sums(weights):
            false_alarms, hits = negatives.double(), positives.double()
            false_alarms[0] += false
            hits[0] += true
            false_alarms, hits = false_alarms.cumsum(0), hits.cumsum(0)
            false, true = false_alarms[-1], hits[-1]
            found = false_alarms + hits
            # Nothing found yet: no hits either, and 0 / 1 is the 0 that it adds.
            total += (positives * hits / found.masked_fill_(found == 0, 1)).sum(0)
        return _ratio(total, true)


def rank_class(score: npt.NDArray[np.generic], label: npt.NDArray[np.float64]) -> RankedClass:
    """Sort one class.

    Args:
        score: (n,), not NaN where there is a label.
        label: (n,) in {0, 1, NaN}.
    """
    known = np.flatnonzero(~np.isnan(label))
    order = known[np.argsort(score[known], kind="stable")]
    negatives, positives = order[label[order] == 0], order[label[order] == 1]
    if len(positives) == 0:
        return RankedClass(None, None)
    roc = _roc_steps(score, negatives, positives) if len(negatives) else None
    return RankedClass(roc, _precision_steps(score, negatives, positives))


def _roc_steps(
    score: npt.NDArray[np.generic], negatives: npt.NDArray[np.intp], positives: npt.NDArray[np.intp]
) -> Steps:
    below = np.searchsorted(score[negatives], score[positives], side="left")
    not_above = np.searchsorted(score[negatives], score[positives], side="right")
    ends, twice = np.concatenate([below, not_above]), np.concatenate([positives, positives])
    order = np.argsort(ends, kind="stable")
    distinct = np.unique(ends)
    starts = np.searchsorted(ends[order], distinct)
    # One step more, without a positive, for the negatives above the highest positive: they count in the total.
    return _steps(negatives, np.r_[0, distinct, len(negatives)], twice[order], np.r_[starts, len(twice), len(twice)])


def _precision_steps(
    score: npt.NDArray[np.generic], negatives: npt.NDArray[np.intp], positives: npt.NDArray[np.intp]
) -> Steps:
    distinct = np.unique(score[positives])
    below = np.searchsorted(score[negatives], distinct, side="left")[::-1]
    lower = np.searchsorted(score[positives], distinct, side="left")[::-1]
    return _steps(
        negatives[::-1], np.r_[0, len(negatives) - below], positives[::-1], np.r_[0, len(positives) - lower]
    )


def _steps(*arrays: npt.NDArray[np.intp]) -> Steps:
    import torch

    return Steps(*(torch.from_numpy(np.array(array, dtype=np.int64)) for array in arrays))


def _bags(rows: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    """(K, R) sums of the weights of rows[starts[k] : starts[k + 1]]."""
    from torch.nn import functional

    first, last = int(starts[0]), int(starts[-1])
    return functional.embedding_bag(rows[first:last], weights, starts[:-1] - first, mode="sum")


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return (part / whole).masked_fill_(whole <= 0, float("nan"))


def _zeros(weights: Tensor) -> Tensor:
    import torch

    return torch.zeros(weights.shape[1], dtype=torch.float64)


def _nan(weights: Tensor) -> Tensor:
    return _zeros(weights).fill_(float("nan"))
