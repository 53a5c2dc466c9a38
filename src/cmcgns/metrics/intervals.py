"""Intervals of all figures of a cell, or of the difference of two encoders, from one pass over the resamples.

Every figure is computed on the same resamples: whole patients, drawn with replacement. Where a resample leaves a
figure undefined (no positive was drawn), that resample does not count for it, and `resamples` says how many did.
What is the same in every resample has no interval (:func:`cmcgns.metrics.interval_table.table_of`).
Figures between 0 and 1 have intervals on the logit scale
(:func:`cmcgns.metrics.interval_table.share_ends`), other figures and differences have percentile intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cmcgns.common.errors import UserError
from cmcgns.metrics.interval_table import MeasureIntervals, PairedIntervals, difference_table, table_of
from cmcgns.metrics.ranking import FloatArray, IntArray
from cmcgns.metrics.resamples import count_chunks, patient_index

if TYPE_CHECKING:
    from cmcgns.metrics.measure import Measure, Measures

ONE_PATIENT = "all rows are of one patient: an interval needs at least two"


@dataclass(frozen=True)
class _Resampled:
    values: FloatArray  # (S, M) on the sample itself
    drawn: FloatArray  # (S, R, M); R = 0 where nothing could be drawn
    rows: int
    patients: int

    @property
    def reason(self) -> str:
        return ONE_PATIENT if self.patients < 2 else ""


def measure_intervals(
    measures: Sequence[Measures],
    groups: npt.ArrayLike,
    mask: npt.ArrayLike | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> MeasureIntervals:
    """Every figure with its 95 % interval, for each seed and for the mean over seeds.

    Args:
        measures: one a seed, of the same rows; a repeated object is computed once.
        groups: (n,) patient id of each row.
        mask: (n,) true for the rows of a subgroup: only they count, and only their patients are drawn. None: all.
        resamples: how many resamples.
        seed: of the draws.

    Raises:
        UserError: no seeds, seeds with different figures, an empty mask, or bad ids.
    """
    of = _names(measures)
    if any(one.of != of for one in measures):
        raise UserError("the seeds have different figures: evaluate again into a new folder")
    found = _resample(measures, groups, mask, resamples, seed)
    undefined = np.full(len(of), np.nan)
    return MeasureIntervals(
        of,
        tuple(table_of(of, *pair, found.patients) for pair in zip(found.values, found.drawn, strict=True)),
        table_of(of, found.values.mean(axis=0), found.drawn.mean(axis=0), found.patients),
        found.values.std(axis=0, ddof=1) if len(measures) > 1 else undefined,
        found.rows,
        found.patients,
        found.reason,
    )


def paired_intervals(
    first: Sequence[Measures],
    second: Sequence[Measures],
    groups: npt.ArrayLike,
    mask: npt.ArrayLike | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> PairedIntervals:
    """Differences of two encoders (means over their seeds) on the same resamples of the same patients.

    What the two have in common (easy and hard patients) cancels, so the interval is far narrower than two separate
    intervals suggest. A resample counts where both are defined.

    Args:
        first: figures of the first encoder, one object a seed.
        second: of the second; rows in the same order.
        groups: (n,) patient id of each row.
        mask: (n,) true for the rows of a subgroup. None: all rows.
        resamples: how many resamples.
        seed: of the draws.

    Raises:
        UserError: as :func:`measure_intervals`, or no figure in common.
    """
    shared = set.intersection(*(set(one.of) for one in [*first, *second]))
    of = tuple(name for name in _names(first) if name in shared)
    if not of or not second:
        raise UserError("the two have no figure in common")
    found_a, found_b = (_resample(_only(side, of), groups, mask, resamples, seed) for side in (first, second))
    value_a, value_b = found_a.values.mean(axis=0), found_b.values.mean(axis=0)
    difference = difference_table(value_a - value_b, found_a.drawn.mean(axis=0) - found_b.drawn.mean(axis=0))
    return PairedIntervals(of, value_a, value_b, difference, found_a.rows, found_a.patients, found_a.reason)


def _resample(
    measures: Sequence[Measures], groups: npt.ArrayLike, mask: npt.ArrayLike | None, resamples: int, seed: int
) -> _Resampled:
    """All figures of all seeds, on the sample and on the resamples; each distinct object once a chunk."""
    ids = np.asarray(groups)
    rows = _rows(mask, len(ids))
    _, patients = patient_index(ids[rows])
    distinct = list({id(one): one for one in measures}.values())
    place = [next(k for k, other in enumerate(distinct) if other is one) for one in measures]
    sample = np.zeros((1, len(ids)), dtype=np.int32)
    sample[0, rows] = 1
    values = np.stack([_compute(one, sample)[0] for one in distinct])
    chunks: list[FloatArray] = [np.empty((len(distinct), 0, values.shape[1]))]
    for part in count_chunks(ids[rows], resamples, seed) if patients > 1 else ():
        counts = part
        if len(rows) < len(ids):
            table = np.zeros((len(ids), len(part)), dtype=np.int32)
            table[rows] = part.T
            counts = table.T
        chunks.append(np.stack([_compute(one, counts) for one in distinct]))
    drawn = np.concatenate(chunks, axis=1)
    return _Resampled(values[place], drawn[place], len(rows), patients)


def _rows(mask: npt.ArrayLike | None, n: int) -> IntArray:
    if mask is None:
        return np.arange(n)
    inside = np.asarray(mask)
    if inside.dtype != bool or inside.shape != (n,):
        raise UserError(f"a subgroup must be ({n},) of Booleans, not {inside.shape} of {inside.dtype}")
    if not inside.any():
        raise UserError("the subgroup has no rows")
    return np.flatnonzero(inside)


def _names(measures: Sequence[Measures]) -> tuple[Measure, ...]:
    if not measures:
        raise UserError("no finished cell to take figures from")
    return measures[0].of


def _compute(measures: Measures, counts: npt.NDArray[np.int32]) -> FloatArray:
    found = np.asarray(measures.compute(counts), dtype=np.float64)
    if found.shape != (len(counts), len(measures.of)):
        raise ValueError(f"{len(measures.of)} figures of {len(counts)} resamples came as {found.shape}")
    return found


def _only(measures: Sequence[Measures], of: tuple[Measure, ...]) -> list[Measures]:
    """Some of the figures; a repeated object stays a repeated object."""
    kept: dict[int, Measures] = {}
    for one in measures:
        columns = [one.of.index(name) for name in of]
        kept.setdefault(id(one), replace(one, of=of, compute=partial(_columns, one, columns)))
    return [kept[id(one)] for one in measures]


def _columns(measures: Measures, columns: list[int], counts: npt.NDArray[np.generic]) -> FloatArray:
    return measures.compute(counts)[:, columns]
