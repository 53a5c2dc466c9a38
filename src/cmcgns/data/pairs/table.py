"""The table of radiographs and reports: its file, its columns under our names, and what its cells mean."""

import difflib
import logging
import os
import re
from pathlib import Path

import pandas as pd
import pyarrow
import pyarrow.parquet

from cmcgns.common.errors import UserError
from cmcgns.data.manifest import image_file

logger = logging.getLogger(__name__)

TEXT_COLUMNS = ("report", "findings", "impression")
OPTIONAL_COLUMNS = ("study_id", "patient_id", "view", "split", "dataset")
_COLUMNS = ("image_path", *TEXT_COLUMNS, *OPTIONAL_COLUMNS)
_TABLE_NAMES = ("manifest.parquet", "manifest.csv", "pairs.parquet", "pairs.csv")


def find_table(path: Path) -> Path:
    """The table meant by a path.

    Args:
        path: a table, or a folder with a table of a known name or a single one.

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


def read_columns(table: Path, mapping: dict[str, str], everything: bool) -> pd.DataFrame:
    """The cells of a table as they are, under our column names.

    Args:
        table: csv or parquet file.
        mapping: our column name -> the table's, for those that differ.
        everything: also read columns of a parquet table that pretraining does not know.

    Returns:
        One row per row of the table: `image_path`, at least one column of text, and what else there is.

    Raises:
        UserError: not to be read, a mapping that does not fit, repeated columns, or no images or text.
    """
    frame = _read(table, None if everything else mapping)
    names = pyarrow.parquet.read_schema(table).names if table.suffix == ".parquet" else list(frame.columns)
    _warn_about_near_names([str(name) for name in names], mapping, table)
    frame = _named(frame, mapping, table)
    if frame.columns.duplicated().any():
        raise UserError(f"{table}: column {frame.columns[frame.columns.duplicated()][0]} stands there twice")
    hint = f"found: {', '.join(map(str, frame.columns))}; map names with --set data.columns.<ours>=<yours>"
    if "image_path" not in frame:
        raise UserError(f"{table}: missing column image_path ({hint})")
    if not any(column in frame for column in TEXT_COLUMNS):
        raise UserError(f"{table}: missing report text: one of {', '.join(TEXT_COLUMNS)} ({hint})")
    return frame


def _read(table: Path, mapping: dict[str, str] | None) -> pd.DataFrame:
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
        known = {mapping.get(name, name) for name in _COLUMNS}
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


def _warn_about_near_names(names: list[str], mapping: dict[str, str], table: Path) -> None:
    """A column that is ignored although it is spelt almost like one that would be used."""

    def plain(name: str) -> str:
        return re.sub(r"[^a-z0-9]", "", name.lower())

    unknown = {plain(name): name for name in names if name not in _COLUMNS and name not in mapping.values()}
    for wanted in _COLUMNS:
        if wanted in names or wanted in mapping:
            continue
        near = difflib.get_close_matches(plain(wanted), unknown, 1, cutoff=0.9)
        if near:
            theirs = unknown[near[0]]
            logger.warning(
                "%s: the column %s is not used; if it is %s, say so with --set data.columns.%s=%s",
                table.name, theirs, wanted, wanted, theirs,
            )  # fmt: skip


def _named(frame: pd.DataFrame, mapping: dict[str, str], table: Path) -> pd.DataFrame:
    """The frame with our names, after every entry of the mapping has been found to mean one column."""
    for ours, theirs in mapping.items():
        if ours not in _COLUMNS:
            near = difflib.get_close_matches(ours, _COLUMNS, 1)
            hint = f" Did you mean {near[0]}?" if near else f" They are {', '.join(_COLUMNS)}."
            raise UserError(f"data.columns.{ours} is none of our columns.{hint}")
        if theirs not in frame:
            found = ", ".join(map(str, frame.columns))
            raise UserError(f"{table}: data.columns.{ours} names the column {theirs}, which is not there ({found})")
        if list(mapping.values()).count(theirs) > 1:
            raise UserError(f"{table}: data.columns uses the column {theirs} more than once")
    return frame.rename(columns={theirs: ours for ours, theirs in mapping.items()})


def fill_columns(frame: pd.DataFrame, table: Path) -> pd.DataFrame:
    """All columns of text and ids, stripped; images by absolute path.

    A row without a study is one of its own, a study without a patient is one of its own.

    Args:
        frame: of `read_columns`, and `row`; changed in place.
        table: where it comes from; relative image paths start at its folder.

    Raises:
        UserError: a row without an image; names the first.
    """
    for column in (*TEXT_COLUMNS, *OPTIONAL_COLUMNS):
        frame[column] = _as_text(frame[column]) if column in frame else ""
    paths = _as_text(frame["image_path"])
    empty = frame.loc[paths == "", "row"]
    if len(empty):
        raise UserError(f"{table}: image_path is empty in row {empty.iloc[0]} ({len(empty)} rows)")
    frame["image_path"] = _absolute(paths, table.parent.resolve())
    for column, fallback in (("study_id", "image_path"), ("patient_id", "study_id")):
        missing = frame[column] == ""
        if missing.any():
            logger.info("%s: %d rows without %s: %s is used", table.name, missing.sum(), column, fallback)
            frame.loc[missing, column] = frame.loc[missing, fallback]
    if (frame["split"] == "").all():  # nobody split the table; else an empty one keeps its row out, as in a manifest
        frame["split"] = "train"
    return frame


def check_ids(frame: pd.DataFrame, table: Path) -> None:
    """One row for each image, one patient for each study.

    Args:
        frame: of `fill_columns`.
        table: named in messages.

    Raises:
        UserError: an image in several rows (however its path is spelt), or a study of several patients.
    """
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
        rows = frame.loc[frame["study_id"] == study, "row"].tolist()
        raise UserError(
            f"{table}: duplicate id: study_id {study} belongs to {patients[study]} patients (rows {_some(rows)}; "
            f"{(patients > 1).sum()} studies have several): give the studies of different patients ids of their own, "
            "for example patient and study joined"
        )


def warn_about_reports(frame: pd.DataFrame, name: str) -> None:
    """Say how many studies have rows with different reports.

    Args:
        frame: study_id, text, row.
        name: of the table.
    """
    shared = frame[frame["study_id"].duplicated(keep=False)]
    reports = shared.groupby("study_id")["text"].nunique()
    several = reports.index[reports > 1]
    if len(several):
        rows = shared.loc[shared["study_id"] == several[0], "row"].tolist()
        logger.warning(
            "%s: %d study ids have rows with different reports, for example %s (rows %s): each row is its own pair",
            name, len(several), several[0], _some(rows),
        )  # fmt: skip


def _some(rows: list[int]) -> str:
    return ", ".join(map(str, rows[:5])) + (", …" if len(rows) > 5 else "")


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
