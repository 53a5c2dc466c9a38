"""Intervals of figures from their resamples, and why one has none or a narrow one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cmcgns.metrics.measure import LEAST, Kind, Measure
from cmcgns.metrics.ranking import FloatArray, IntArray
from cmcgns.metrics.resamples import Resampled, percentile_ends, share_ends

NO_SHARES = ("cnr",)
"""Beginnings of the names of figures that may happen to lie between 0 and 1 but have no bounds there."""
NO_VARIATION = "no interval: no variation among the resamples"
ONE_PATIENT = "all rows are of one patient: an interval needs at least two"
DIFFERENCE = 2
"""A difference, whose interval is made of percentiles, must rest on so many times as many patients as a figure."""
TOO_FEW = "no interval"
NARROW = "interval too narrow"
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Interval:
    """A number with its interval.

    Attributes:
        value: the figure of the sample itself.
        low: lower end; None where there is no interval.
        high: upper end.
        n: rows of the sample.
        resamples: resamples behind the ends; those in which the figure was undefined are not among them.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    resamples: int


def leaves_out_zero(low: float | None, high: float | None) -> bool:
    """Whether there is an interval, and it lies on one side of 0."""
    return low is not None and high is not None and (low > 0 or high < 0)


@dataclass(frozen=True)
class IntervalTable:
    """M figures with their 95 % intervals.

    Attributes:
        of: M names.
        value: (M,); NaN where the figure is undefined on the sample itself.
        low: (M,) lower ends; NaN where there is none.
        high: (M,) upper ends.
        resamples: (M,) behind the ends; 0 where there is none.
        reasons: M, why there is no interval although there may be a value, or why it is too narrow; else empty.
        rows: how many were judged.
        patients: among them.
        support: (M,) patients of the scarcest kind that the figure rests on.
    """

    of: tuple[Measure, ...]
    value: FloatArray
    low: FloatArray
    high: FloatArray
    resamples: IntArray
    reasons: tuple[str, ...]
    rows: int
    patients: int
    support: IntArray

    def records(self) -> list[tuple[float | None, float | None, float | None, int]]:
        """M times value, low, high, resamples; None in place of NaN, as JSON wants it."""
        columns = [none_if_undefined(column) for column in (self.value, self.low, self.high)]
        return list(zip(*columns, self.resamples.tolist(), strict=True))


def interval_table(
    of: tuple[Measure, ...], value: FloatArray, drawn: FloatArray, found: Resampled, logit: bool, times: int = 1
) -> IntervalTable:
    """Figures (M,) with intervals from those of the resamples (R, M).

    What is undefined on the sample itself has no interval either, whatever its resamples are. Nor has a figure that
    is the same in every resample, such as a recall of 0: patients who are all alike say nothing of how others may
    differ, and an interval of no width would claim certainty. What rests on a handful of patients has none because
    they cannot say how much others vary.
    """
    low, high, used = percentile_ends(drawn)
    flat = high - low <= _ROUNDING * np.maximum(1, np.abs(high))
    if logit:
        named = np.array([not one.metric.startswith(NO_SHARES) for one in of])
        share = named & ~flat & (value >= 0) & (value <= 1) & (low >= 0) & (high <= 1)
        low[share], high[share] = share_ends(value[share], low[share], high[share], found.patients)
    undefined = np.isnan(value)
    reasons = [_reason(*about, times) for about in zip(found.support, flat.tolist(), strict=True)]
    support = np.array([min(count for _, count in kinds) for kinds in found.support], dtype=np.intp)
    without = undefined | flat | (support < LEAST)
    low, high, used = np.where(without, np.nan, low), np.where(without, np.nan, high), np.where(without, 0, used)
    silent = (undefined & (found.patients > 1)) | (np.isnan(low) & ~flat & (support >= LEAST))
    said = tuple("" if quiet else text for quiet, text in zip(silent, reasons, strict=True))
    return IntervalTable(of, value, low, high, used, said, found.rows, found.patients, support)


def _reason(support: Sequence[tuple[Kind, int]], flat: bool, times: int) -> str:
    """Why a figure has no interval, or one that is too narrow; empty if neither."""
    kind, patients = min(support, key=lambda pair: pair[1])
    whom = f"only {patients} patient{'s' * (patients != 1)} {kind.name}".strip()
    if patients < LEAST:
        return ONE_PATIENT if patients == 1 and not kind.name else f"{TOO_FEW}: {whom}, at least {LEAST} are needed"
    if flat:
        return NO_VARIATION
    return f"{NARROW}: {whom}" if is_narrow(support, times) else ""


def is_narrow(support: Sequence[tuple[Kind, int]], times: int = 1) -> bool:
    """Whether an interval rests on too few patients of some kind to be as wide as it should be."""
    return any(count < times * each.enough for each, count in support)


def none_if_undefined(values: FloatArray) -> list[float | None]:
    """Numbers for JSON: None in place of NaN."""
    return [None if np.isnan(value) else float(value) for value in values]
