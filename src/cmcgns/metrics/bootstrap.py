"""Intervals that respect patients: whole patients are drawn, never single images.

Images of one patient resemble each other, so drawing rows would make intervals too narrow. A resample is kept
as counts (how often each row was drawn), which lets a metric handle all resamples at once. Intervals are
percentile intervals (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13; clusters:
Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). With few patients (below
about 30), or an area above 0.95 with few positives, they are too narrow and lie too low; the figures of an
evaluation therefore have the intervals of :mod:`cmcgns.metrics.intervals`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from cmcgns.common.errors import UserError
from cmcgns.metrics.interval_table import percentile_ends
from cmcgns.metrics.ranking import FloatArray, RankedScores, mean_over_classes
from cmcgns.metrics.resamples import Counts, cluster_resample_counts, count_chunks, patient_index

__all__ = [
    "Interval",
    "auroc_interval",
    "bootstrap_interval",
    "cluster_resample_counts",
    "interval_text",
    "mean_interval",
    "paired_auroc_difference",
    "paired_difference",
    "patient_index",
]


Statistic = Callable[[Counts], FloatArray]
"""Counts (R, n) -> one value per resample (R,). Called several times, each with some of the resamples."""


@dataclass(frozen=True)
class Interval:
    """A number with its interval.

    Attributes:
        value: the statistic of the sample itself.
        low: lower end.
        high: upper end.
        n: rows of the sample.
        resamples: resamples behind the ends; those in which the statistic was undefined are not among them.
    """

    value: float
    low: float
    high: float
    n: int
    resamples: int


def interval_text(interval: Mapping[str, float] | Interval, digits: int = 3) -> str:
    """`0.912 (0.897 to 0.926)`."""
    values = asdict(interval) if isinstance(interval, Interval) else interval
    return f"{values['value']:.{digits}f} ({values['low']:.{digits}f} to {values['high']:.{digits}f})"


def bootstrap_interval(
    statistic: Statistic, groups: npt.ArrayLike, *, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Percentile interval of any statistic that can be computed from counts.

    Args:
        statistic: counts (R, n) -> (R,); NaN where a resample leaves it undefined.
        groups: (n,) patient id of each row.
        resamples: how many resamples.
        seed: of the draws.
        level: of the interval, between 0 and 1.

    Raises:
        UserError: fewer than two patients, bad ids or settings, or a statistic undefined on the whole sample.
    """
    if not 0 < level < 1:
        raise UserError(f"level must lie between 0 and 1, not {level}")
    index, patients = patient_index(groups)
    if patients < 2:
        raise UserError("all rows are of one patient: an interval needs at least two patients")
    value = float(statistic(np.ones((1, len(index)), dtype=np.int32))[0])
    if not np.isfinite(value):
        raise UserError(f"the statistic is {value} on the sample itself, so it has no interval")
    drawn = np.concatenate([statistic(counts) for counts in count_chunks(groups, resamples, seed)])
    low, high, used = percentile_ends(drawn[:, None], level)
    if used[0] == 0:
        raise UserError("the statistic is undefined in every resample")
    return Interval(value, float(low[0]), float(high[0]), len(index), int(used[0]))


def paired_difference(
    first: Statistic,
    second: Statistic,
    groups: npt.ArrayLike,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Interval of ``first - second``, both computed on the same resamples of the same patients.

    What the two have in common (easy and hard patients) cancels, so the interval is far narrower than two
    separate intervals suggest. Arguments and errors: :func:`bootstrap_interval`.
    """
    return bootstrap_interval(
        lambda counts: first(counts) - second(counts), groups, resamples=resamples, seed=seed, level=level
    )


def auroc_interval(
    scores: npt.ArrayLike, labels: npt.ArrayLike, groups: npt.ArrayLike, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Mean area under the ROC curve with its 95 % interval.

    A class that loses all its positives or negatives in a resample is left out of that resample's mean.

    Args:
        scores: (n, C).
        labels: (n, C) in {0, 1, NaN}.
        groups: (n,) patient id of each row.
        resamples: how many resamples.
        seed: of the draws.

    Raises:
        UserError: bad input, or no class with both a positive and a negative.
    """
    return bootstrap_interval(_mean_auroc(scores, labels, groups), groups, resamples=resamples, seed=seed)


def paired_auroc_difference(
    scores_a: npt.ArrayLike,
    scores_b: npt.ArrayLike,
    labels: npt.ArrayLike,
    groups: npt.ArrayLike,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean area of ``scores_a`` minus that of ``scores_b``, with its paired 95 % interval.

    Arguments and errors: :func:`auroc_interval`.
    """
    first, second = _mean_auroc(scores_a, labels, groups), _mean_auroc(scores_b, labels, groups)
    return paired_difference(first, second, groups, resamples=resamples, seed=seed)


def mean_interval(values: npt.ArrayLike, groups: npt.ArrayLike, resamples: int = 2000, seed: int = 0) -> Interval:
    """Mean of one value per row (a Dice, a hit, a correct answer) with its 95 % interval.

    Args:
        values: (n,) finite.
        groups: (n,) patient id of each row.
        resamples: how many resamples.
        seed: of the draws.

    Raises:
        UserError: shapes differ or a value is not finite.
    """
    value = np.asarray(values, dtype=np.float64)
    if value.shape != np.shape(groups):
        raise UserError(f"values {value.shape} and patient ids {np.shape(groups)} must both be (n,)")
    if not np.isfinite(value).all():
        raise UserError(f"value of row {np.flatnonzero(~np.isfinite(value))[0]} is not finite")

    def mean(counts: Counts) -> FloatArray:
        weights = counts.astype(np.float64)
        return np.asarray(weights @ value / weights.sum(axis=1))

    return bootstrap_interval(mean, groups, resamples=resamples, seed=seed)


def _mean_auroc(scores: npt.ArrayLike, labels: npt.ArrayLike, groups: npt.ArrayLike) -> Statistic:
    ranked = RankedScores(scores, labels)
    if np.shape(groups) != (ranked.rows,):
        raise UserError(f"{ranked.rows} rows of scores, but patient ids of shape {np.shape(groups)}")
    return lambda counts: mean_over_classes(ranked.auroc(counts))
