"""Figures that are a mean of one value a row: hits, precisions, overlaps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from cmcgns.evaluation.contract import Array, Measure, Measures
from cmcgns.evaluation.metrics import FloatArray


def row_means(values: Mapping[Measure, Array]) -> Measures:
    """Weighted means over the rows that have a value.

    Args:
        values: (n,) of each figure, NaN where a row has none.

    Returns:
        Figures in the order given; NaN where no row with a value has weight.
    """
    table = np.stack([np.asarray(column, dtype=np.float64) for column in values.values()], axis=1)
    defined = ~np.isnan(table)
    filled, there = np.where(defined, table, 0.0), defined.astype(np.float64)

    def compute(counts: npt.NDArray[np.generic]) -> FloatArray:
        weights = np.asarray(counts, dtype=np.float64)
        total, weight = weights @ filled, weights @ there
        return np.asarray(np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0))

    return Measures(tuple(values), compute)
