"""Figures by name, each a function of how often every row counts: what an interval is computed from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cmcgns.metrics.ranking import FloatArray

Array = npt.NDArray[Any]


@dataclass(frozen=True, order=True)
class Measure:
    """Name of a figure.

    Attributes:
        metric: for example `auroc`, `map`, `dice_positive`, `r@10`.
        label: the class, or empty for the mean over classes and for what has none.
    """

    metric: str
    label: str = ""


@dataclass(frozen=True)
class Measures:
    """Figures of one cell's predictions.

    Attributes:
        of: M names; the first is the one that a table shows.
        compute: counts (R, n), how often each row was drawn, -> (R, M); NaN where a figure is undefined. Weights of 0
            leave rows out, so subgroups need nothing of their own.
    """

    of: tuple[Measure, ...]
    compute: Callable[[npt.NDArray[np.generic]], FloatArray]


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


def joined(parts: Sequence[Measures]) -> Measures:
    """Several groups of figures as one."""

    def compute(counts: npt.NDArray[np.generic]) -> FloatArray:
        return np.concatenate([part.compute(counts) for part in parts], axis=1)

    return Measures(tuple(measure for part in parts for measure in part.of), compute)
