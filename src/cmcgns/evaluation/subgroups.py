"""Subgroups of the test rows: sex, age band, view, as far as the manifest says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cmcgns.errors import UserError
from cmcgns.evaluation.metrics import BoolArray

UNKNOWN = "unknown"
AGE_BANDS = {"0-17": 18, "18-39": 40, "40-59": 60, "60-79": 80, "80+": np.inf}
"""Name of a band and the age at which the next one begins."""
MIN_ROWS = 20
MIN_PATIENTS = 2


class Subgroup(NamedTuple):
    """Some of the rows.

    Attributes:
        name: for example `sex=F`, `age=40-59`, `view=PA`, `sex=unknown`.
        mask: (n,) true for its rows.
    """

    name: str
    mask: BoolArray


class Subgroups(NamedTuple):
    """All subgroups.

    Attributes:
        found: large enough for figures of their own.
        too_small: the others, named with their size: `sex=unknown (3 rows of 2 patients)`.
    """

    found: list[Subgroup]
    too_small: list[str]


def subgroups(columns: pd.DataFrame | Mapping[str, Sequence[Any]], groups: npt.ArrayLike) -> Subgroups:
    """Subgroups by sex, age band and view.

    A column that is missing, or the same for every row, makes no subgroup: it would repeat the figures of everyone.

    Args:
        columns: `sex`, `age` (years), `view` of the n rows, as in the manifest, each optional. Empty text, missing
            values and the words None, nan, <NA> are unknown.
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
                result.found.append(Subgroup(f"{column}={name}", mask))
            else:
                result.too_small.append(f"{column}={name} ({_size(rows, owners)})")
    return result


def _text(values: Any, column: str, rows: int) -> npt.NDArray[np.str_]:
    series = pd.Series(list(values), dtype=object)
    if len(series) != rows:
        raise UserError(f"column {column} has {len(series)} values for {rows} rows")
    text = series.where(series.notna(), "").astype(str).str.strip()
    return text.where(~text.isin(["", "None", "nan", "NaN", "<NA>"]), UNKNOWN).to_numpy(dtype=np.str_)


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


def _size(rows: int, patients: int) -> str:
    return f"{rows} row{'s' * (rows != 1)} of {patients} patient{'s' * (patients != 1)}"
