"""Subsets of rows: label fractions of the training rows, subgroups of the test rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cmcgns.common.errors import UserError
from cmcgns.data.tables import is_missing
from cmcgns.data.vocabulary import parse_sexes, parse_view
from cmcgns.metrics.ranking import BoolArray, IntArray, check_labels
from cmcgns.metrics.resamples import patient_index

RULE = 2
"""Version of the rule by which fractions are drawn. 1: no patient without a finding was moved to the front."""


def nested_fraction(groups: npt.ArrayLike, labels: npt.ArrayLike, fraction: float, seed: int) -> IntArray:
    """Rows of a share of the patients; a smaller share of the same seed lies within a larger one.

    All patients are put in one order, and a fraction takes its first patients. Each patient belongs to the
    rarest finding they have (or to "none"); the patients of each such stratum are shuffled and spread
    evenly over the order, so that every beginning has about the same mix. One patient with and one without each
    finding are then moved to the front, rarest finding first: a fraction of at least 2 C patients has both of every
    finding that occurs, at the price of a few patients too many with findings in a very small fraction.

    Args:
        groups: (n,) patient id of each row.
        labels: (n, C) in {0, 1, NaN}.
        fraction: of patients, in (0, 1]; rounded, at least one patient.
        seed: of the order. Which patients are taken does not depend on the order of the rows.

    Returns:
        Row numbers, rising.

    Raises:
        UserError: bad ids or labels, lengths that differ, or a fraction outside (0, 1].
    """
    index, patients = patient_index(groups)
    label = check_labels(labels)
    if len(label) != len(index):
        raise UserError(f"{len(label)} rows of labels for {len(index)} patient ids")
    if not 0 < fraction <= 1:
        raise UserError(f"fraction must lie in (0, 1], not {fraction}")
    has = np.zeros((2, patients, label.shape[1]), dtype=bool)
    for value in (0, 1):
        row, column = np.nonzero(label == value)
        has[value, index[row], column] = True
    order = _patient_order(has[1], has[0], np.random.default_rng(seed))
    taken = np.zeros(patients, dtype=bool)
    taken[order[: max(1, round(fraction * patients))]] = True
    return np.flatnonzero(taken[index])


def _patient_order(
    positive: npt.NDArray[np.bool_], negative: npt.NDArray[np.bool_], rng: np.random.Generator
) -> IntArray:
    """Order of patients from which fractions are cut. (P, C) twice, a row of the patient has it or not -> (P,)."""
    patients, classes = positive.shape
    rarest = np.argsort(positive.sum(axis=0), kind="stable")
    by_rarity, without = positive[:, rarest], negative[:, rarest]
    stratum = np.where(by_rarity.any(axis=1), by_rarity.argmax(axis=1), classes)
    shuffled = rng.permutation(patients)
    grouped = shuffled[np.argsort(stratum[shuffled], kind="stable")]
    sizes = np.bincount(stratum, minlength=classes + 1)
    rank = np.arange(patients) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    place = (rank + rng.random(patients)) / sizes[stratum[grouped]]
    order = grouped[np.argsort(place, kind="stable")]
    front: list[int] = []
    for c in range(classes):
        for having in (by_rarity[:, c], without[:, c]):
            if having.any() and not having[front].any():
                front.append(int(order[having[order].argmax()]))
    return np.concatenate([np.array(front, dtype=np.intp), order[~np.isin(order, front)]])


UNKNOWN = "unknown"
AGE_BANDS = {"0-17": 18, "18-39": 40, "40-59": 60, "60-79": 80, "80+": np.inf}
"""Name of a band and the age at which the next one begins."""
MIN_ROWS = 20
MIN_PATIENTS = 2


class Subgroups(NamedTuple):
    """All subgroups.

    Attributes:
        found: name, for example `sex=F`, `age=40-59`, `view=PA`, `sex=unknown`, and mask (n,), true for its rows, of
            those that are large enough for figures of their own.
        too_small: the others, named with their size: `sex=unknown (3 rows of 2 patients)`.
    """

    found: list[tuple[str, BoolArray]]
    too_small: list[str]


def subgroups(columns: pd.DataFrame | Mapping[str, Sequence[Any]], groups: npt.ArrayLike) -> Subgroups:
    """Subgroups by sex, age band and view.

    A column that is missing, or the same for every row, makes no subgroup: it would repeat the figures of everyone.

    Args:
        columns: `sex`, `age` (years), `view` of the n rows, as in the manifest, each optional. Empty text, missing
            values and words that stand for them (None, nan, <NA>) are unknown, and so is a sex other than F or M.
        groups: (n,) patient ids.

    Raises:
        UserError: a column of another length, or an age that is no number or negative; names it.
    """
    patients = np.asarray(groups)
    result = Subgroups([], [])
    for column in ("sex", "age", "view"):
        if column not in columns:
            continue
        values = _text(columns[column], column, len(patients))
        values = _bands(values) if column == "age" else values
        order = [*AGE_BANDS] if column == "age" else sorted(set(values.tolist()) - {UNKNOWN})
        there = [name for name in [*order, UNKNOWN] if (values == name).any()]
        for name in there if len(there) > 1 else ():
            mask = values == name
            rows, owners = int(mask.sum()), len(set(patients[mask].tolist()))
            if rows >= MIN_ROWS and owners >= MIN_PATIENTS:
                result.found.append((f"{column}={name}", mask))
            else:
                result.too_small.append(
                    f"{column}={name} ({rows} row{'s' * (rows != 1)} of {owners} patient{'s' * (owners != 1)})"
                )
    return result


def _text(values: Any, column: str, rows: int) -> npt.NDArray[np.str_]:
    series = pd.Series(list(values), dtype=object)
    if len(series) != rows:
        raise UserError(f"column {column} has {len(series)} values for {rows} rows")
    text = series.where(series.notna(), "").astype(str).str.strip()
    if column == "sex":
        text = parse_sexes(text)
    if column == "view":
        text = text.map({cell: cell if (view := parse_view(cell)) is None else view for cell in text.unique()})
    return text.mask(is_missing(text), UNKNOWN).to_numpy(dtype=np.str_)


def _bands(values: npt.NDArray[np.str_]) -> npt.NDArray[np.str_]:
    known = values != UNKNOWN
    age = np.full(len(values), np.nan)
    try:
        age[known] = values[known].astype(np.float64)
    except ValueError as error:
        raise UserError(f"column age: {error}; years are expected") from error
    if (wrong := known & ~(age >= 0)).any():
        raise UserError(f"column age: {values[wrong][0]} in row {np.flatnonzero(wrong)[0]} is no age")
    names = np.array([*AGE_BANDS, UNKNOWN])
    band = np.searchsorted(np.array(list(AGE_BANDS.values())), age, side="right")
    return names[np.where(known, np.minimum(band, len(AGE_BANDS) - 1), len(AGE_BANDS))]
