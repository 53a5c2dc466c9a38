"""Cells of datasets' tables, checked row by row: labels and boxes; and the splits of the rows."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cmcgns.common.errors import shortened
from cmcgns.data.boxes import BOX_FIELDS, boxes_text
from cmcgns.data.manifest import LABEL, NUMBERS, TEXT
from cmcgns.data.tables import MISSING, has_nul, map_once, read_table
from cmcgns.prepare.sources.base import PLACE, SourceTable


def read_rows(path: Path, table: SourceTable, required: tuple[str, ...] = ()) -> pd.DataFrame:
    """A csv file with a column that names file and row (the first row below the header is row 1).

    Args:
        path: the file.
        table: remembers the rows with NUL bytes, the mark of a damaged file, which are left out.
        required: columns that must be there.
    """
    return number_rows(read_table(path, required), path.name, table)


def number_rows(rows: pd.DataFrame, name: str, table: SourceTable) -> pd.DataFrame:
    """The rows with the column `PLACE`, without those that have NUL bytes, which the table remembers."""
    damaged = has_nul(rows)
    places = name + ", row " + pd.Series(range(1, len(rows) + 1), index=rows.index).astype("str")
    table.also_left_out(places[damaged], "NUL bytes: the file is damaged")
    return rows.assign(**{PLACE: places})[~damaged].reset_index(drop=True)


def quoted(cells: pd.Series) -> pd.Series:
    """(n,) the cells as messages quote them: in marks, and not at any length."""
    return cells.map(lambda cell: repr(shortened(cell, 80))).astype("str")


def look_up(keys: pd.Series, found: Mapping[str, str] | pd.Series) -> pd.Series:
    """(n,) text: what is found under each key; empty for nothing."""
    return keys.map(found).astype(object).fillna("").astype("str")


def with_image(faults: pd.Series, images: pd.Series) -> pd.Series:
    """The faults of rows; a wrong row takes the others of its image along, whose boxes or mask would lack a part."""
    beside = (faults != "").groupby(images).transform("any") & (faults == "")
    return faults.mask(beside, "another row of this image is wrong")


def read_labels(table: SourceTable, columns: Mapping[str, str]) -> None:
    """Make label columns from text; rows with other values than 1, 0, -1 or nothing are left out.

    Args:
        table: its frame has `PLACE`.
        columns: label column -> column of text.
    """
    for ours, theirs in columns.items():
        values, bad = label_values(table.frame[theirs])
        if bad.any():
            cells = table.frame[theirs].astype("str")
            table.leave_out(bad, f"{theirs} is " + quoted(cells) + "; 1, 0, -1 or nothing is expected")
            values = values[~bad].reset_index(drop=True)
        table.frame[ours] = values


def label_values(cells: pd.Series) -> tuple[pd.Series, pd.Series]:
    """(n,) Int8 labels (missing: not stated), and (n,) Boolean: the cell holds something else."""
    numbers = map_once(cells, _label).astype("float64")
    bad = numbers == math.inf
    return numbers.where(~bad).astype("Int8"), bad


def _label(cell: str) -> float:
    """1, 0 or -1; NaN for nothing, infinity for anything else."""
    text = cell.strip().lower()
    if text in MISSING:
        return math.nan
    try:
        number = float({"true": "1", "false": "0"}.get(text, text.replace(",", ".")))  # decimal commas
    except ValueError:
        return math.inf
    return number if number in (1, 0, -1) else math.inf


def drop_bad_boxes(boxes: pd.DataFrame, table: SourceTable) -> pd.DataFrame:
    """The boxes that have an area; others are left out, their images stay.

    Args:
        boxes: text or numbers in x, y, width, height, and `PLACE`.
        table: remembers the bad ones.
    """
    numbers = boxes[list(BOX_FIELDS)].apply(pd.to_numeric, errors="coerce")
    finite = numbers.map(math.isfinite).all(axis=1)
    positive = (numbers["width"] > 0) & (numbers["height"] > 0)
    for bad, reason in ((~finite, "box is not four numbers"), (finite & ~positive, "box without area")):
        table.also_left_out(boxes.loc[bad, PLACE], reason)
    good = finite & positive
    kept: pd.DataFrame = boxes.drop(columns=list(BOX_FIELDS)).join(numbers)[good].reset_index(drop=True)
    return kept


def boxes_by_image(boxes: pd.DataFrame, extra: tuple[str, ...] = ()) -> dict[str, str]:
    """Image -> its boxes as JSON.

    Args:
        boxes: columns image, label, x, y, width, height and the extra ones.
        extra: columns that a box keeps where they are not empty.
    """
    groups: dict[str, list[dict[str, object]]] = {}
    stated = ("label", *BOX_FIELDS, *extra)
    for image, *values in boxes[["image", *stated]].itertuples(index=False):
        box = dict(zip(stated, values, strict=True))
        groups.setdefault(image, []).append({name: value for name, value in box.items() if value != ""})
    return {image: boxes_text(members) for image, members in groups.items()}


def finish(table: SourceTable, *extra: str) -> SourceTable:
    """The table without rows that have no image, and with the manifest's columns only, and other splits (`split_…`).

    Args:
        table: rows whose `source` is empty are left out.
        extra: what the names of further columns begin with.
    """
    table.leave_out(table.frame["source"] == "", "no such image")
    names = [str(name) for name in table.frame]
    known = {*TEXT, *NUMBERS, "mask"}
    kept = [name for name in names if name in known or name.startswith((LABEL, "split_", *extra))]
    table.frame = table.frame[kept].reset_index(drop=True)
    return table


def draw_splits(
    patients: pd.Series, seed: int, fractions: dict[str, float], strata: pd.Series | None = None
) -> pd.Series:
    """A split for every row such that a patient is in one split only, drawn by the seed.

    The draw depends on the names of the patients alone, not on the order of the rows.

    Args:
        patients: (n,) patient ids.
        seed: of the draw.
        fractions: share of the patients by split; they sum to 1.
        strata: (n,) values whose shares the splits keep, the largest of each patient counts (e.g. the label).

    Returns:
        (n,) names of splits.
    """
    rows = pd.DataFrame({"patient": patients, "stratum": 0 if strata is None else strata})
    largest = rows.groupby("patient")["stratum"].max().sort_index()
    generator = np.random.default_rng(seed)
    chosen = pd.Series("", index=largest.index, dtype="str")
    for stratum in sorted(largest.unique()):
        members = largest.index[largest == stratum].to_numpy()
        members = members[generator.permutation(len(members))]
        ends = np.round(np.cumsum(list(fractions.values())) * len(members)).astype(int)
        for name, start, end in zip(fractions, [0, *ends[:-1]], ends, strict=True):
            chosen[members[start:end]] = name
    return patients.map(chosen)


def describe_shared_patients(frame: pd.DataFrame) -> str:
    """Whether a patient is in several splits, as the rows have it, whatever their source says of itself.

    Args:
        frame: patient_id, study_id and split; rows without a split do not count.

    Returns:
        A note; empty where no patients are named (then each study stands for one), or there are no two splits.
    """
    rows = frame[frame["split"] != ""]
    if rows["split"].nunique() < 2 or (rows["patient_id"] == rows["study_id"]).all():
        return ""
    shared = rows.groupby("patient_id")["split"].nunique().loc[lambda splits: splits > 1]
    if shared.empty:
        return "patients: none is in two splits (looked up in all rows)"
    example = shortened(shared.index[0], 80)
    return f"patients: {len(shared):,} are in more than one split, for example {example}; `cmcgns check` lists them"


def published_splits(count: int, held_out: float) -> NDArray[np.str_]:
    """The splits that published programs drew: shuffled by seed 0, a share held out, halved into test and validation.

    Gives what scikit-learn's `train_test_split(…, random_state=0)` gives, called twice.

    Returns:
        (count,) "train", "val" or "test".
    """
    rest = published_share(count, held_out)
    validation = published_share(len(rest), 0.5)
    splits = np.full(count, "train", dtype="<U5")
    splits[rest] = "test"
    splits[rest[validation]] = "val"
    return splits


def published_share(count: int, share: float) -> NDArray[np.int64]:
    """Positions that `train_test_split(range(count), test_size=share, random_state=0)` holds out, in its order."""
    order = np.random.RandomState(0).permutation(count)
    return order[: math.ceil(count * share)]
