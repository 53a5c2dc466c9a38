"""The bootstrap one figure at a time, in the obvious way: what the tables of intervals must agree with."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from cmcgns.metrics.interval_table import Interval, IntervalTable
from cmcgns.metrics.measure import Measure, Measures
from cmcgns.metrics.ranking import RankedScores, mean_over_classes
from cmcgns.metrics.resamples import count_chunks


def cluster_resample_counts(groups: npt.ArrayLike, resamples: int = 2000, seed: int = 0) -> np.ndarray:
    """(R, n) how often each row was drawn."""
    return np.concatenate(list(count_chunks(groups, resamples, seed)))


def percentile_interval(
    statistic: Callable[[np.ndarray], np.ndarray], groups: npt.ArrayLike, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Of a statistic, counts (R, n) -> (R,), without the resamples that leave it undefined."""
    drawn = statistic(cluster_resample_counts(groups, resamples, seed))
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    n = len(np.asarray(groups))
    value = float(statistic(np.ones((1, n), dtype=np.int32))[0])
    return Interval(value, float(low), float(high), n, int((~np.isnan(drawn)).sum()))


def first_of(table: IntervalTable) -> Interval:
    """The first figure of a table."""
    value, low, high, used = table.records()[0]
    return Interval(np.nan if value is None else value, low, high, table.rows, used)


def auroc(scores: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> np.ndarray:
    """Area under the ROC curve per class (C,), or (R, C) with weights (R, n)."""
    ranked = RankedScores(scores, labels)
    return ranked.auroc(np.ones((1, ranked.rows)))[0] if weights is None else ranked.auroc(weights)


def mean_area(scores: npt.ArrayLike, labels: npt.ArrayLike) -> Callable[[np.ndarray], np.ndarray]:
    """Mean area over the classes that have one in a resample."""
    ranked = RankedScores(scores, labels)
    return lambda counts: mean_over_classes(ranked.auroc(counts))


def of_areas(scores: npt.ArrayLike, labels: npt.ArrayLike) -> Measures:
    """The same as a figure."""
    area = mean_area(scores, labels)
    return Measures((Measure("auroc"),), lambda counts: area(counts)[:, None])


def of_values(values: np.ndarray) -> Measures:
    """The mean of one value a row as a figure."""
    return Measures((Measure("mean"),), lambda counts: (counts @ values / counts.sum(axis=1))[:, None])
