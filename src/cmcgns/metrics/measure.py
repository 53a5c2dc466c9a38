"""Figures by name, each a function of how often every row counts: what an interval is computed from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cmcgns.metrics.ranking import BoolArray, FloatArray

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


LEAST = 5
"""Patients of each kind without whom a figure has no interval: with 1, 2, 3 it would cover in 14, 65, 84 %."""
ENOUGH = 10
"""Patients of each kind from whom on an interval is as wide as it should be."""


class Kind(NamedTuple):
    """Rows that a figure cannot do without.

    Attributes:
        name: as it follows "patients", e.g. `with a mask`; empty for rows of any kind.
        rows: (n,) true for them.
        enough: patients of this kind below whom the interval is called too narrow.
    """

    name: str
    rows: BoolArray
    enough: int = ENOUGH


@dataclass(frozen=True)
class Measures:
    """Figures of one cell's predictions.

    Attributes:
        of: M names; the first is the one that a table shows.
        compute: counts (R, n), how often each row was drawn, -> (R, M); NaN where a figure is undefined. Weights of 0
            leave rows out, so subgroups need nothing of their own.
        rests_on: of a figure the kinds of rows that it cannot do without, as positives and negatives of an area; a
            figure that is not in it rests on all rows.
        notes: of a figure, what a reader must know of it.
    """

    of: tuple[Measure, ...]
    compute: Callable[[npt.NDArray[np.generic]], FloatArray]
    rests_on: Mapping[Measure, Sequence[Kind]] = field(default_factory=dict)
    notes: Mapping[Measure, str] = field(default_factory=dict)


def row_means(values: Mapping[Measure, Array], kind: str = "") -> Measures:
    """Weighted means over the rows that have a value.

    Args:
        values: (n,) of each figure, NaN where a row has none.
        kind: name of the rows with a value, as in :class:`Kind`.

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

    return Measures(tuple(values), compute, {name: [Kind(kind, defined[:, m])] for m, name in enumerate(values)})


def label_means(values: Mapping[str, Array], labels: Array, by_label: Iterable[str]) -> Measures:
    """Means over the rows of all figures (n,), then of some of them by the label (n,) that a row is about."""
    named = {Measure(name): column for name, column in values.items()}
    for name in by_label:
        named |= {Measure(name, str(x)): np.where(labels == x, values[name], np.nan) for x in np.unique(labels)}
    return row_means(named)


def joined(parts: Sequence[Measures]) -> Measures:
    """Several groups of figures as one."""

    def compute(counts: npt.NDArray[np.generic]) -> FloatArray:
        return np.concatenate([part.compute(counts) for part in parts], axis=1)

    rests_on = {name: kinds for part in parts for name, kinds in part.rests_on.items()}
    notes = {name: text for part in parts for name, text in part.notes.items()}
    return Measures(tuple(measure for part in parts for measure in part.of), compute, rests_on, notes)
