"""What the cells of a table mean: text, paths and ids, filled in where missing, and free of contradiction."""

import logging
import os
from pathlib import Path

import pandas as pd

from cmcgns.data.manifest import image_file
from cmcgns.data.pairs.table import OPTIONAL_COLUMNS, TEXT_COLUMNS
from cmcgns.errors import UserError

logger = logging.getLogger(__name__)


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
