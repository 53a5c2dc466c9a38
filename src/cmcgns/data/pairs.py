"""Reading a table of radiographs and reports, and saying what is wrong with it."""

import difflib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet

from cmcgns.config import DataSettings
from cmcgns.data.manifest import image_file
from cmcgns.data.remote import is_url
from cmcgns.data.reports import split_sentences
from cmcgns.errors import UserError

logger = logging.getLogger(__name__)

_TABLE_NAMES = ("manifest.parquet", "manifest.csv", "pairs.parquet", "pairs.csv")
_TEXT_COLUMNS = ("report", "findings", "impression")
_OPTIONAL = ("study_id", "patient_id", "view", "split", "dataset")
_NOT_FRONTAL = ("L", "LL", "LATERAL", "RL", "LEFT LATERAL", "RIGHT LATERAL", "OTHER")


@dataclass
class Pairs:
    """Rows that can be trained on.

    Attributes:
        frame: columns image_path (absolute), study_id, patient_id, view, split, dataset, text, row (1-based row of
            the source, header not counted) and whatever else the source has but the columns of the report: `text`
            stands for them.
        source: the table that was read.
        left_out: rows that are not used: row, image_path, reason.
    """

    frame: pd.DataFrame
    source: Path
    left_out: list[dict[str, object]] = field(default_factory=list)

    def leave_out(self, bad: pd.Series, reason: str) -> None:
        """Take rows out, remember and log them."""
        rows = self.frame[bad]
        if len(rows) == 0:
            return
        self.left_out += [
            {"row": int(row), "image_path": str(path), "reason": reason}
            for row, path in zip(rows["row"], rows["image_path"], strict=True)
        ]
        shown = ", ".join(str(row) for row in rows["row"][:5])
        logger.warning("%s: %d rows left out: %s (rows %s…)", self.source.name, len(rows), reason, shown)
        self.frame = self.frame[~bad].reset_index(drop=True)


def read_pairs(
    path: Path, settings: DataSettings, exists: Callable[[str], bool] | None = None, everything: bool = True
) -> Pairs:
    """Read a csv or parquet table, or the one table of a folder.

    A table without splits is one of training rows. Where only some rows have a split, the others belong to none and
    are left out.

    Args:
        path: table or folder; relative image paths start at the table's folder.
        settings: columns, views, which text.
        exists: says whether an image is there; by default a file of that path (URLs are taken to be there).
        everything: also read columns that pretraining does not know (from a parquet table; they cost memory).

    Raises:
        UserError: no table, missing columns, repeated images, missing image files.
    """
    table = find_table(path)
    frame = _read_table(table, None if everything else settings.columns)
    frame = _rename_columns(frame, settings.columns, table)
    frame["row"] = range(1, len(frame) + 1)
    pairs = Pairs(_fill_columns(frame, table), table)
    _check_identity(pairs.frame, table)
    pairs.leave_out(pairs.frame["split"] == "", "no split (empty, while other rows have one)")
    if settings.views == "frontal":
        pairs.leave_out(
            pairs.frame["view"].str.upper().isin(_NOT_FRONTAL), "not a frontal view (data.views=all keeps it)"
        )
        unknown = (~pairs.frame["view"].str.contains("AP|PA|FRONTAL", case=False)).sum()
        if unknown:
            logger.info("%s: %d rows have no known view and are kept as frontal", table.name, unknown)
    pairs.frame["text"] = choose_text(pairs.frame, settings.text)
    pairs.frame = pairs.frame.drop(columns=list(_TEXT_COLUMNS))  # `text` has them: a quarter of the memory
    pairs.leave_out(~_has_sentence(pairs.frame["text"]), "empty report")
    _check_files(pairs, settings.bad_images, exists)
    if len(pairs.frame) == 0:
        raise UserError(f"{table}: no row is left to train on; see the reasons above")
    pyarrow.default_memory_pool().release_unused()  # intermediate columns: half as much again as the rows
    return pairs


def find_table(path: Path) -> Path:
    """The table meant by a path.

    Raises:
        UserError: there is none, or several.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"--data {path}: no such file or folder")
    for name in _TABLE_NAMES:
        if (path / name).is_file():
            return path / name
    tables = sorted(file for file in path.iterdir() if file.suffix in (".csv", ".parquet"))
    if len(tables) != 1:
        found = ", ".join(file.name for file in tables) or "none"
        raise UserError(f"--data {path}: one csv or parquet table is expected there (found: {found}); name the file")
    return tables[0]


def _read_table(table: Path, mapping: dict[str, str] | None) -> pd.DataFrame:
    """All columns, or with a mapping of names only those that pretraining knows."""
    try:
        if table.suffix == ".parquet":
            return _read_parquet(table, mapping)
        if table.suffix == ".csv":
            return _read_csv(table)
    except (ValueError, OSError) as error:
        raise UserError(f"{table} cannot be read: {error}") from error
    raise UserError(f"{table}: a .csv or .parquet table is expected")


def _read_parquet(table: Path, mapping: dict[str, str] | None) -> pd.DataFrame:
    names = None
    if mapping is not None:
        known = {mapping.get(name, name) for name in ("image_path", *_TEXT_COLUMNS, *_OPTIONAL)}
        found = pyarrow.parquet.read_schema(table).names
        wanted = {*mapping.values(), mapping.get("image_path", "image_path")}
        if wanted <= set(found):  # else the message about what is missing shall list all that is there
            names = [name for name in found if name in known]
    frame = pd.read_parquet(table, columns=names)
    pyarrow.default_memory_pool().release_unused()
    return frame


def _read_csv(table: Path) -> pd.DataFrame:
    # Without a header pandas takes rows longer than the column names for rows with an index, and shifts them.
    cells = pd.read_csv(table, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    frame = cells.iloc[1:].reset_index(drop=True)
    frame.columns = pd.Index([str(name).strip() for name in cells.iloc[0]])
    return frame


def _rename_columns(frame: pd.DataFrame, columns: dict[str, str], table: Path) -> pd.DataFrame:
    known = ("image_path", *_TEXT_COLUMNS, *_OPTIONAL)
    for ours, theirs in columns.items():
        if ours not in known:
            near = difflib.get_close_matches(ours, known, 1)
            hint = f" Did you mean {near[0]}?" if near else f" They are {', '.join(known)}."
            raise UserError(f"data.columns.{ours} is none of our columns.{hint}")
        if theirs not in frame:
            found = ", ".join(map(str, frame.columns))
            raise UserError(f"{table}: data.columns.{ours} names the column {theirs}, which is not there ({found})")
        if list(columns.values()).count(theirs) > 1:
            raise UserError(f"{table}: data.columns uses the column {theirs} more than once")
    frame = frame.rename(columns={theirs: ours for ours, theirs in columns.items()})
    if frame.columns.duplicated().any():
        raise UserError(f"{table}: column {frame.columns[frame.columns.duplicated()][0]} stands there twice")
    hint = f"found: {', '.join(map(str, frame.columns))}; map names with --set data.columns.<ours>=<yours>"
    if "image_path" not in frame:
        raise UserError(f"{table}: missing column image_path ({hint})")
    if not any(column in frame for column in _TEXT_COLUMNS):
        raise UserError(f"{table}: missing report text: one of {', '.join(_TEXT_COLUMNS)} ({hint})")
    return frame


def _fill_columns(frame: pd.DataFrame, table: Path) -> pd.DataFrame:
    for column in (*_TEXT_COLUMNS, *_OPTIONAL):
        frame[column] = _as_text(frame[column]) if column in frame else ""
    paths = _as_text(frame["image_path"])
    empty = frame.loc[paths == "", "row"]
    if len(empty):
        raise UserError(f"{table}: image_path is empty in row {empty.iloc[0]} ({len(empty)} rows)")
    root = table.parent.resolve()
    frame["image_path"] = _absolute(paths, root)
    for column, fallback in (("study_id", "image_path"), ("patient_id", "study_id")):
        missing = frame[column] == ""
        if missing.any():
            logger.info("%s: %d rows without %s: %s is used", table.name, missing.sum(), column, fallback)
            frame.loc[missing, column] = frame.loc[missing, fallback]
    if (frame["split"] == "").all():  # nobody split the table; else an empty one keeps its row out, as in a manifest
        frame["split"] = "train"
    return frame


def _absolute(paths: pd.Series, root: Path) -> pd.Series:
    """What `image_file` makes of every path; without a loop where all are plain relative ones."""
    if paths.str.contains(r"^/|//|(?:^|/)\.{1,2}(?:/|$)").any():
        return pd.Series([image_file(root, path) for path in paths], index=paths.index, dtype="str")
    return f"{root}/" + paths


def _as_text(values: pd.Series) -> pd.Series:
    """Stripped strings; missing values of any spelling are empty, and 12.0 in a column with gaps is 12 again."""
    if pd.api.types.is_float_dtype(values.dtype) and (values.dropna() % 1 == 0).all():
        values = values.astype("Int64")
    if not isinstance(values.dtype, pd.StringDtype):  # else no detour over Python objects: a million take 0.1 GB
        values = values.astype(object).where(values.notna(), "").astype(str)
    text = values.fillna("").str.strip()
    return text.mask(text.str.lower() == "nan", "")


def _check_identity(frame: pd.DataFrame, table: Path) -> None:
    paths = frame["image_path"]
    if paths.str.contains(r"//|/\.\.?(?:/|$)").any():
        paths = paths.map(os.path.normpath)
    repeated = paths.duplicated(keep=False)
    if repeated.any():
        path = paths[repeated].iloc[0]
        raise UserError(
            f"{table}: duplicate id: image_path {path} stands in rows {frame.loc[paths == path, 'row'].tolist()} "
            f"({paths[repeated].nunique()} images are repeated); keep one row for each image"
        )
    patients = frame.groupby("study_id")["patient_id"].nunique()
    if (patients > 1).any():
        study = patients.index[patients > 1][0]
        raise UserError(f"{table}: duplicate id: study_id {study} belongs to {patients[study]} patients")


def choose_text(frame: pd.DataFrame, kind: str) -> pd.Series:
    """The text of each row: findings, then impression (a missing one leaves no gap), or the whole report.

    Args:
        frame: columns findings, impression, report; text.
        kind: sections, report, or auto (sections where a row has them).
    """
    sections = (frame["findings"].str.strip() + "\n\n" + frame["impression"].str.strip()).str.strip()
    if kind == "sections":
        return sections
    report = frame["report"].str.strip()
    return report if kind == "report" else sections.where(sections != "", report)


def _has_sentence(texts: pd.Series) -> pd.Series:
    # Every text with a letter has one; only the others ("1.", "?") are worth the splitter's time.
    found = texts.str.contains(r"[^\W\d_]").to_numpy(dtype=bool, copy=True)
    found[~found] = [bool(split_sentences(text)) for text in texts[~found]]
    return pd.Series(found, index=texts.index)


def _check_files(pairs: Pairs, bad_images: str, exists: Callable[[str], bool] | None = None) -> None:
    exists = exists or (lambda path: is_url(path) or Path(path).is_file())
    paths = pairs.frame["image_path"]
    missing = pd.Series(np.fromiter((not exists(path) for path in paths), bool, len(paths)), index=paths.index)
    if not missing.any():
        return
    if bad_images == "leave_out":
        pairs.leave_out(missing, "image file is missing")
        return
    rows = pairs.frame[missing]
    listed = "\n  ".join(f"row {r}: {p}" for r, p in zip(rows["row"][:10], rows["image_path"][:10], strict=True))
    raise UserError(
        f"{pairs.source}: {len(rows)} image files are missing:\n  {listed}\n"
        "Correct the paths, or leave these rows out with --set data.bad_images=leave_out"
    )


def assign_splits(pairs: Pairs, settings: DataSettings, seed: int) -> tuple[pd.Index, pd.Index]:
    """Training and validation rows.

    Without rows of the validation split (or with `val_split: null`) a fraction of the training patients is held
    out, drawn by the seed.

    Returns:
        Two row indices of `pairs.frame`.

    Raises:
        UserError: no training row, or no second patient to hold out.
    """
    frame = pairs.frame
    train = frame.index[frame["split"] == settings.train_split]
    if len(train) == 0:
        found = ", ".join(sorted(frame["split"].unique()))
        raise UserError(f"{pairs.source}: no row has split {settings.train_split} (found: {found})")
    others = frame.loc[~frame["split"].isin([settings.train_split, settings.val_split]), "split"].value_counts()
    for name, number in others.items():
        logger.info("%s: %d rows of split %s are not used", pairs.source.name, number, name)
    if settings.val_split is not None:
        val = frame.index[frame["split"] == settings.val_split]
        if len(val):
            shared = set(frame.loc[train, "patient_id"]) & set(frame.loc[val, "patient_id"])
            if shared:
                logger.warning(
                    "%s: %d patients are in both %s and %s, for example %s: the validation losses are too good",
                    pairs.source.name, len(shared), settings.train_split, settings.val_split, min(shared),
                )  # fmt: skip
            return train, val
        logger.warning("%s: no row has split %s", pairs.source.name, settings.val_split)
    patients = pd.Series(sorted(frame.loc[train, "patient_id"].unique()))
    if len(patients) < 2:
        raise UserError(f"{pairs.source}: all training rows belong to one patient; none can be held out")
    wanted = min(max(1, round(settings.val_fraction * len(patients))), len(patients) - 1)
    held_out = patients.sample(wanted, random_state=np.random.default_rng(seed))
    is_val = frame.loc[train, "patient_id"].isin(held_out)
    logger.info("%s: %d of %d training patients held out", pairs.source.name, len(held_out), len(patients))
    return train[~is_val], train[is_val]
