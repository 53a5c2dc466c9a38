"""Resamples of patients: whole patients are drawn, with all their rows.

A resample is kept as counts (how often each row was drawn), which lets a metric handle many resamples at once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd

from cmcgns.common.errors import UserError
from cmcgns.metrics.ranking import IntArray

Counts = npt.NDArray[np.int32]

_CHUNK_CELLS = 1 << 23  # resamples × rows drawn at once: 32 MB
_CHUNK_RESAMPLES = 128  # but no fewer than these


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


def cluster_resample_counts(groups: npt.ArrayLike, resamples: int = 2000, seed: int = 0) -> Counts:
    """Draw as many patients as there are, with replacement, many times.

    Args:
        groups: (n,) patient id of each row.
        resamples: R, how many times.
        seed: of the draws; equal seeds and groups give equal counts.

    Returns:
        (R, n) how often each row was drawn; rows of one patient always agree.

    Raises:
        UserError: bad ids (see :func:`patient_index`) or resamples < 1.
    """
    return np.concatenate(list(count_chunks(groups, resamples, seed)))


def count_chunks(groups: npt.ArrayLike, resamples: int, seed: int) -> Iterator[Counts]:
    """The rows of :func:`cluster_resample_counts`, some at a time, so that memory does not grow with R × n.

    Each chunk is the transpose of a table (n, R), in which the counts of one row lie side by side: metrics that pick
    rows are much faster on it.
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
