"""Resamples of patients, and figures computed on them: whole patients are drawn, with all their rows.

Images of one patient resemble each other, so drawing rows would make intervals too narrow (clusters: Davison and
Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). A resample is kept as counts (how often each row
was drawn), which lets a metric handle many resamples at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from cmcgns.common.errors import UserError
from cmcgns.metrics.measure import Kind, Measure, Measures
from cmcgns.metrics.ranking import FloatArray, IntArray

Counts = npt.NDArray[np.int32]

_CHUNK_CELLS = 1 << 23  # resamples × rows drawn at once: 32 MB
_CHUNK_RESAMPLES = 128  # but no fewer than these
_ENDS = ((1 - 0.95) / 2, (1 + 0.95) / 2)  # shares of the resamples below the ends of a 95 % interval


def patient_index(groups: npt.ArrayLike) -> tuple[IntArray, int]:
    """Number the patients of the rows.

    Args:
        groups: (n,) patient ids, strings or numbers.

    Returns:
        (n,) numbers from 0 in the order of the sorted ids, and how many patients there are.

    Raises:
        UserError: not one-dimensional, empty, an id missing, or ids of types that have no common order.
    """
    ids = np.asarray(groups)
    if ids.ndim != 1 or len(ids) == 0:
        raise UserError(f"patient ids must be (n,) with n > 0, not {ids.shape}")
    missing = np.flatnonzero(pd.isna(ids))
    if len(missing):
        raise UserError(f"row {missing[0]} has no patient id ({len(missing)} such rows)")
    try:
        unique, index = np.unique(ids, return_inverse=True)
    except TypeError as error:
        raise UserError("patient ids mix types; make all of them strings") from error
    return index, len(unique)


def count_chunks(groups: npt.ArrayLike, resamples: int, seed: int) -> Iterator[Counts]:
    """Draw as many patients as there are, with replacement, many times; some resamples at a time, to save memory.

    Each chunk is the transpose of a table (n, R), in which the counts of one row lie side by side: metrics that pick
    rows are much faster on it.

    Args:
        groups: (n,) patient id of each row.
        resamples: how many in all.
        seed: of the draws; equal seeds and groups give equal counts, however they are cut into chunks.

    Yields:
        (R, n) how often each row was drawn; rows of one patient always agree.

    Raises:
        UserError: bad ids (see :func:`patient_index`) or resamples < 1.
    """
    if resamples < 1:
        raise UserError(f"resamples must be 1 or more, not {resamples}")
    index, patients = patient_index(groups)
    rng = np.random.default_rng(seed)
    step = max(_CHUNK_RESAMPLES, _CHUNK_CELLS // len(index))
    for start in range(0, resamples, step):
        draws = rng.integers(0, patients, size=(min(step, resamples - start), patients))
        counts = np.stack([np.bincount(row, minlength=patients) for row in draws], axis=1, dtype=np.int32)
        yield np.take(counts, index, axis=0).T


@dataclass(frozen=True)
class Resampled:
    """M figures of S seeds on the sample itself and on R resamples.

    Attributes:
        values: (S, M).
        drawn: (S, R, M), NaN where a resample leaves a figure undefined; R = 0 where there is a single patient.
        rows: how many were judged.
        patients: among them.
        support: of each figure the patients of each kind that it rests on.
    """

    values: FloatArray
    drawn: FloatArray
    rows: int
    patients: int
    support: tuple[tuple[tuple[Kind, int], ...], ...]


def resample(
    measures: Sequence[Measures],
    of: Sequence[Measure],
    groups: npt.ArrayLike,
    mask: npt.ArrayLike | None,
    resamples: int,
    seed: int,
) -> Resampled:
    """Figures of all seeds, on the sample and on the same resamples.

    Args:
        measures: one a seed, of the same rows; a repeated object is computed once.
        of: the M figures wanted; every seed has them.
        groups: (n,) patient id of each row.
        mask: (n,) true for the rows of a subgroup: only they count, and only their patients are drawn. None: all.
        resamples: how many.
        seed: of the draws.

    Raises:
        UserError: an empty mask, or bad ids.
    """
    ids = np.asarray(groups)
    rows = _rows(mask, len(ids))
    index, patients = patient_index(ids[rows])
    distinct = list({id(one): one for one in measures}.values())
    place = [next(k for k, other in enumerate(distinct) if other is one) for one in measures]
    sample = np.zeros((1, len(ids)), dtype=np.int32)
    sample[0, rows] = 1
    values = np.stack([_compute(one, of, sample)[0] for one in distinct])
    chunks: list[FloatArray] = [np.empty((len(distinct), 0, len(of)))]
    for part in count_chunks(ids[rows], resamples, seed) if patients > 1 else ():
        counts = part
        if len(rows) < len(ids):
            table = np.zeros((len(ids), len(part)), dtype=np.int32)
            table[rows] = part.T
            counts = table.T
        chunks.append(np.stack([_compute(one, of, counts) for one in distinct]))
    drawn = np.concatenate(chunks, axis=1)[place]
    return Resampled(values[place], drawn, len(rows), patients, _support(measures[0], of, rows, index))


def _support(
    measures: Measures, of: Sequence[Measure], rows: IntArray, patient: IntArray
) -> tuple[tuple[tuple[Kind, int], ...], ...]:
    """Patients of each kind that the figures rest on, among some rows (r,) of the patients (r,)."""
    everyone = [Kind("", np.ones(rows.max() + 1, dtype=bool))]
    counted: dict[int, int] = {}  # a class shares its kinds with the mean over classes

    def count(kind: Kind) -> int:
        if id(kind.rows) not in counted:
            counted[id(kind.rows)] = len(np.unique(patient[kind.rows[rows]]))
        return counted[id(kind.rows)]

    return tuple(tuple((kind, count(kind)) for kind in measures.rests_on.get(name, everyone)) for name in of)


def _rows(mask: npt.ArrayLike | None, n: int) -> IntArray:
    if mask is None:
        return np.arange(n)
    inside = np.asarray(mask)
    if inside.dtype != bool or inside.shape != (n,):
        raise UserError(f"a subgroup must be ({n},) of Booleans, not {inside.shape} of {inside.dtype}")
    if not inside.any():
        raise UserError("the subgroup has no rows")
    return np.flatnonzero(inside)


def _compute(measures: Measures, of: Sequence[Measure], counts: Counts) -> FloatArray:
    found = np.asarray(measures.compute(counts), dtype=np.float64)
    if found.shape != (len(counts), len(measures.of)):
        raise ValueError(f"{len(measures.of)} figures of {len(counts)} resamples came as {found.shape}")
    return found[:, [measures.of.index(name) for name in of]]


def share_ends(value: FloatArray, low: FloatArray, high: FloatArray, patients: int) -> tuple[FloatArray, FloatArray]:
    """Intervals of figures between 0 and 1: as wide as the percentile interval on the logit scale, but centred.

    Near 1 the resamples of such a figure are skewed towards 0 and percentile intervals lie too low: with few
    positives and an area of 0.96 they cover in 84 % instead of 95 %. On the logit scale, which is the usual one for
    an area (Pepe, The Statistical Evaluation of Medical Tests, 2003), the skew is gone, so half the
    width of the percentile interval there, to both sides of the figure, is the standard interval of Efron and
    Tibshirani (1993, chapter 12: transform until the figure is about normal). Ends stay between 0 and 1. Tested in
    tests/metrics/test_coverage.py.

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


def percentile_ends(drawn: FloatArray) -> tuple[FloatArray, FloatArray, IntArray]:
    """Ends of 95 % percentile intervals.

    Args:
        drawn: (R, M) figures of the resamples, NaN where undefined.

    Returns:
        (M,) lower ends, (M,) upper ends, and (M,) how many resamples were defined; NaN where none was.
    """
    used = (~np.isnan(drawn)).sum(axis=0)
    ends = np.full((2, drawn.shape[1]), np.nan)
    whole = (used == len(drawn)) & (used > 0)
    if whole.any():
        ends[:, whole] = np.quantile(drawn[:, whole], _ENDS, axis=0)
    for column in np.flatnonzero(~whole & (used > 0)):
        ends[:, column] = np.nanquantile(drawn[:, column], _ENDS)
    return ends[0], ends[1], used.astype(np.intp)
