"""Figures with their 95 % intervals: many at once, from one pass over the resamples.

Every figure is computed on the same resamples. Where a resample leaves a figure undefined (no positive was drawn),
that resample does not count for it, and `resamples` says how many did. What is the same in every resample has no
interval, nor has what rests on fewer than `LEAST` patients of a kind; with fewer than `ENOUGH` it is marked
(benchmarks/coverage.py).

Differences have percentile intervals (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter
13), figures between 0 and 1 intervals on the logit scale (:func:`cmcgns.metrics.resamples.share_ends`): with few
patients (below about 30), or an area above 0.95 with few positives, percentile intervals are too narrow and lie too
low.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cmcgns.common.errors import UserError
from cmcgns.metrics.interval_table import DIFFERENCE, ONE_PATIENT, Interval, IntervalTable, interval_table
from cmcgns.metrics.measure import LEAST, Measure, Measures, row_means
from cmcgns.metrics.ranking import FloatArray
from cmcgns.metrics.resamples import percentile_ends, resample


@dataclass(frozen=True)
class MeasureIntervals:
    """All figures of one protocol and fraction.

    Attributes:
        seeds: each seed alone, S tables.
        mean: mean over the seeds and its interval, which says how the mean would vary with other patients; how it
            varies with the seed says `sd`. Undefined where a seed is.
        sd: (M,) standard deviation over the seeds (divisor S - 1); NaN for a single seed.
    """

    seeds: tuple[IntervalTable, ...]
    mean: IntervalTable
    sd: FloatArray


@dataclass(frozen=True)
class PairedIntervals:
    """Differences of two encoders in every figure that both have.

    Attributes:
        first: (M,) figures of the first encoder, mean over its seeds; NaN where undefined.
        second: (M,) of the second.
        difference: first - second, with the paired interval.
    """

    first: FloatArray
    second: FloatArray
    difference: IntervalTable


def measure_intervals(
    measures: Sequence[Measures],
    groups: npt.ArrayLike,
    mask: npt.ArrayLike | None = None,
    resamples: int = 2000,
    seed: int = 0,
    logit: bool = True,
) -> MeasureIntervals:
    """Every figure with its 95 % interval, for each seed and for the mean over seeds.

    Args:
        measures: one a seed, of the same rows; a repeated object is computed once.
        groups: (n,) patient id of each row.
        mask: (n,) true for the rows of a subgroup: only they count, and only their patients are drawn. None: all.
        resamples: how many resamples.
        seed: of the draws.
        logit: intervals of figures between 0 and 1 on the logit scale; False: percentile intervals for all.

    Raises:
        UserError: no seeds, seeds with different figures, an empty mask, or bad ids.
    """
    if not measures:
        raise UserError("no finished cell to take figures from")
    of = measures[0].of
    if any(one.of != of for one in measures):
        raise UserError("the seeds have different figures: evaluate again into a new folder")
    found = resample(measures, of, groups, mask, resamples, seed)
    return MeasureIntervals(
        tuple(interval_table(of, *pair, found, logit) for pair in zip(found.values, found.drawn, strict=True)),
        interval_table(of, found.values.mean(axis=0), found.drawn.mean(axis=0), found, logit),
        found.values.std(axis=0, ddof=1) if len(measures) > 1 else np.full(len(of), np.nan),
    )


def paired_intervals(
    first: Sequence[Measures],
    second: Sequence[Measures],
    groups: npt.ArrayLike,
    resamples: int = 2000,
    seed: int = 0,
) -> PairedIntervals:
    """Differences of two encoders (means over their seeds) on the same resamples of the same patients.

    What the two have in common (easy and hard patients) cancels, so the interval is far narrower than two separate
    intervals suggest. A resample counts where both are defined. Percentile intervals want twice the patients: with 5,
    10, 20 positives they cover in 87, 91, 94 % (benchmarks/coverage.py).

    Args:
        first: figures of the first encoder, one object a seed.
        second: of the second; rows in the same order.
        groups: (n,) patient id of each row.
        resamples: how many resamples.
        seed: of the draws.

    Raises:
        UserError: as :func:`measure_intervals`, or no figure in common.
    """
    if not first or not second:
        raise UserError("no finished cell to take figures from")
    shared = set.intersection(*(set(one.of) for one in [*first, *second]))
    of = tuple(name for name in first[0].of if name in shared)
    if not of:
        raise UserError("the two have no figure in common")
    found = [resample(side, of, groups, None, resamples, seed) for side in (first, second)]
    value_a, value_b = (each.values.mean(axis=0) for each in found)
    drawn_a, drawn_b = (each.drawn.mean(axis=0) for each in found)
    difference = interval_table(of, value_a - value_b, drawn_a - drawn_b, found[0], logit=False, times=DIFFERENCE)
    return PairedIntervals(value_a, value_b, difference)


def mean_interval(values: npt.ArrayLike, groups: npt.ArrayLike, resamples: int = 2000, seed: int = 0) -> Interval:
    """Mean of one value a row (an error, a hit) with its 95 % percentile interval, of no width where all are equal.

    With fewer than `LEAST` patients it has none: its ends are None.

    Args:
        values: (n,) finite.
        groups: (n,) patient id of each row.
        resamples: how many resamples.
        seed: of the draws.

    Raises:
        UserError: shapes differ, a value is not finite, bad ids, or a single patient.
    """
    value = np.asarray(values, dtype=np.float64)
    if value.shape != np.shape(groups):
        raise UserError(f"values {value.shape} and patient ids {np.shape(groups)} must both be (n,)")
    if not np.isfinite(value).all():
        raise UserError(f"value of row {np.flatnonzero(~np.isfinite(value))[0]} is not finite")
    measures = row_means({Measure("mean"): value})
    found = resample([measures], measures.of, groups, None, resamples, seed)
    if found.patients < 2:
        raise UserError(ONE_PATIENT)
    low, high, used = percentile_ends(found.drawn[0])
    if found.patients < LEAST:
        return Interval(float(found.values[0, 0]), None, None, found.rows, 0)
    return Interval(float(found.values[0, 0]), float(low[0]), float(high[0]), found.rows, int(used[0]))
