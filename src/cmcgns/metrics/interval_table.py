"""Figures with their intervals, many at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cmcgns.metrics.ranking import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from cmcgns.metrics.measure import Measure

LEVEL = 0.95
NO_SHARES = ("cnr",)
"""Beginnings of the names of figures that may happen to lie between 0 and 1 but have no bounds there."""
NO_VARIATION = "no interval: no variation among the resamples"
_ROUNDING = 1e-12


@dataclass(frozen=True)
class IntervalTable:
    """M figures with their 95 % intervals.

    Attributes:
        value: (M,); NaN where the figure is undefined on the sample itself.
        low: (M,) lower ends; NaN where there is none.
        high: (M,) upper ends.
        resamples: (M,) behind the ends; 0 where there is none.
        flat: (M,) whether a figure has no interval because it is the same in every resample.
    """

    value: FloatArray
    low: FloatArray
    high: FloatArray
    resamples: IntArray
    flat: BoolArray

    def records(self) -> list[tuple[float | None, float | None, float | None, int]]:
        """M times value, low, high, resamples; None in place of NaN, as JSON wants it."""
        columns = [none_if_undefined(column) for column in (self.value, self.low, self.high)]
        return list(zip(*columns, self.resamples.tolist(), strict=True))


@dataclass(frozen=True)
class MeasureIntervals:
    """All figures of one protocol and fraction.

    Attributes:
        of: M names.
        seeds: each seed alone, S tables.
        mean: mean over the seeds and its interval, which says how the mean would vary with other patients; how it
            varies with the seed says `sd`. Undefined where a seed is.
        sd: (M,) standard deviation over the seeds (divisor S - 1); NaN for a single seed.
        rows: how many were judged.
        patients: among them.
        reason: why there is no interval; empty if there is.
    """

    of: tuple[Measure, ...]
    seeds: tuple[IntervalTable, ...]
    mean: IntervalTable
    sd: FloatArray
    rows: int
    patients: int
    reason: str = ""


@dataclass(frozen=True)
class PairedIntervals:
    """Differences of two encoders in every figure that both have.

    Attributes:
        of: M names.
        first: (M,) figures of the first encoder, mean over its seeds; NaN where undefined.
        second: (M,) of the second.
        difference: first - second, with the paired interval.
        rows: how many were judged.
        patients: among them.
        reason: why there is no interval; empty if there is.
    """

    of: tuple[Measure, ...]
    first: FloatArray
    second: FloatArray
    difference: IntervalTable
    rows: int
    patients: int
    reason: str = ""


def table_of(of: Sequence[Measure], value: FloatArray, drawn: FloatArray, patients: int) -> IntervalTable:
    """Figures with intervals; those that lie between 0 and 1 with :func:`share_ends`, others with percentiles.

    What is undefined on the sample itself has no interval either, whatever its resamples are. Nor has a figure that
    is the same in every resample, such as a recall of 0: patients who are all alike say nothing of how others may
    differ, and an interval of no width would claim certainty.

    Args:
        of: M names.
        value: (M,) figures of the sample.
        drawn: (R, M) figures of the resamples.
        patients: that were drawn from.
    """
    low, high, used = percentile_ends(drawn)
    flat = _flat(low, high)
    named = np.array([not one.metric.startswith(NO_SHARES) for one in of])
    share = named & ~flat & (value >= 0) & (value <= 1) & (low >= 0) & (high <= 1)
    low[share], high[share] = share_ends(value[share], low[share], high[share], patients)
    return _with_gaps(value, low, high, used, flat)


def difference_table(value: FloatArray, drawn: FloatArray) -> IntervalTable:
    """Differences (M,) with percentile intervals of those of the resamples (R, M); none where all are the same."""
    low, high, used = percentile_ends(drawn)
    return _with_gaps(value, low, high, used, _flat(low, high))


def _flat(low: FloatArray, high: FloatArray) -> BoolArray:
    return np.asarray(high - low <= _ROUNDING * np.maximum(1, np.abs(high)))


def _with_gaps(
    value: FloatArray, low: FloatArray, high: FloatArray, used: IntArray, flat: BoolArray
) -> IntervalTable:
    undefined = np.isnan(value)
    without = undefined | flat
    low, high = np.where(without, np.nan, low), np.where(without, np.nan, high)
    return IntervalTable(value, low, high, np.where(without, 0, used), flat & ~undefined)


def share_ends(value: FloatArray, low: FloatArray, high: FloatArray, patients: int) -> tuple[FloatArray, FloatArray]:
    """Intervals of figures between 0 and 1: as wide as the percentile interval on the logit scale, but centred.

    Near 1 the resamples of such a figure are skewed towards 0 and percentile intervals lie too low: with few
    positives and an area of 0.96 they cover in 84 % instead of 95 %. On the logit scale, which is the usual one for
    an area (Pepe, The Statistical Evaluation of Medical Tests, 2003), the skew is gone, so half the
    width of the percentile interval there, to both sides of the figure, is the standard interval of Efron and
    Tibshirani (1993, chapter 12: transform until the figure is about normal). Ends stay between 0 and 1. Tested in
    tests/evaluation/test_coverage.py.

    A resample can reach 0 or 1, where the logit is infinite; so figures are kept 1 / (2 P²) away from there, which
    is finer than any figure of P patients.

    Args:
        value: (M,) figures of the sample.
        low: (M,) 2.5 % quantiles of the resamples, below the 97.5 % ones.
        high: (M,) 97.5 % quantiles.
        patients: P.

    Returns:
        (M,) lower and (M,) upper ends.
    """
    margin = 1 / (2 * patients**2)
    centre, bottom, top = (_logit(np.clip(part, margin, 1 - margin)) for part in (value, low, high))
    half = (top - bottom) / 2
    # Resamples that come near the closer bound have logits without bounds, which say nothing: the side away from it
    # does, and as much again.
    away = np.where(value < 0.5, top - centre, centre - bottom)
    half = np.where(away > 0, np.minimum(half, 2 * away), half)
    ends = 1 / (1 + np.exp(half - centre)), 1 / (1 + np.exp(-half - centre))
    return np.minimum(ends[0], value), np.maximum(ends[1], value)


def _logit(share: FloatArray) -> FloatArray:
    return np.asarray(np.log(share / (1 - share)))


def percentile_ends(drawn: FloatArray, level: float = LEVEL) -> tuple[FloatArray, FloatArray, IntArray]:
    """Ends of percentile intervals.

    Args:
        drawn: (R, M) figures of the resamples, NaN where undefined.
        level: of the interval.

    Returns:
        (M,) lower ends, (M,) upper ends, and (M,) how many resamples were defined; NaN where none was.
    """
    used = (~np.isnan(drawn)).sum(axis=0)
    ends = np.full((2, drawn.shape[1]), np.nan)
    shares = [(1 - level) / 2, (1 + level) / 2]
    whole = (used == len(drawn)) & (used > 0)
    if whole.any():
        ends[:, whole] = np.quantile(drawn[:, whole], shares, axis=0)
    for column in np.flatnonzero(~whole & (used > 0)):
        ends[:, column] = np.nanquantile(drawn[:, column], shares)
    return ends[0], ends[1], used.astype(np.intp)


def none_if_undefined(values: FloatArray) -> list[float | None]:
    """Numbers for JSON: None in place of NaN."""
    return [None if np.isnan(value) else float(value) for value in values]
