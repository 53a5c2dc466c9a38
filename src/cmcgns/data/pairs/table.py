"""The table of radiographs and reports: its file, its columns under our names, and what its cells mean."""

import difflib
import logging
from collections.abc import Iterable
from pathlib import Path
from shlex import quote

import pandas as pd

from cmcgns.common.errors import UserError, did_you_mean, first_of, shortened
from cmcgns.data.delimited import TextFormat
from cmcgns.data.manifest import REPORT_COLUMNS
from cmcgns.data.paths import absolute_paths
from cmcgns.data.reports.section_rules import list_rules, load_rules
from cmcgns.data.reports.sections import has_heading
from cmcgns.data.tables import (
    as_text,
    describe_columns,
    is_parquet,
    parquet_columns,
    plain_name,
    read_table,
    refuse_nested,
    refuse_twins,
)
from cmcgns.data.vocabulary import column_reader, parse_splits
from cmcgns.settings.config import DataSettings

logger = logging.getLogger(__name__)

OPTIONAL_COLUMNS = ("study_id", "patient_id", "view", "split", "dataset")
_COLUMNS = ("image_path", *REPORT_COLUMNS, *OPTIONAL_COLUMNS)
_FILE_COLUMNS = ("sha256", "width", "height")  # a run notes them of the images that it saw
_SAMPLE = 200  # reports
TABLE_NAMES = ("manifest.parquet", "manifest.csv", "pairs.parquet", "pairs.csv")


def read_columns(table: Path, settings: DataSettings, everything: bool) -> pd.DataFrame:
    """The cells of a table as they are, under our column names.

    Args:
        table: csv or parquet file.
        settings: `columns` (our column name -> the table's, for those that differ), separator and encoding.
        everything: also read columns of a parquet table that pretraining does not know.

    Returns:
        One row per row of the table: `image_path`, at least one column of text, and what else there is.

    Raises:
        UserError: not to be read, a mapping that does not fit, repeated columns, or no images or text.
    """
    mapping = settings.columns
    names = parquet_columns(table) if is_parquet(table) else []
    form = TextFormat(settings.separator or "", settings.encoding or "")
    frame = read_table(table, columns=None if everything else _wanted(names, mapping), form=form)
    names = names or list(frame.columns)
    refuse_twins(names, _COLUMNS, mapping, lambda pair: f"--set {quote(f'data.columns.{pair}')}", table)
    _warn_of_near_names(names, mapping, table)
    frame = _named(frame, mapping, table)
    if frame.columns.duplicated().any():
        twice = frame.columns[frame.columns.duplicated()][0]
        raise UserError(f"{table}: column {twice} stands there twice: take one away, or rename it")
    found = list(frame.columns)
    refuse_nested(frame, [name for name in _COLUMNS if name in found], table)
    hint = "; map names with --set data.columns.<ours>=<yours>"
    if "image_path" not in frame:
        raise UserError(f"{table}: missing column image_path {describe_columns('image_path', found, hint)}")
    if not any(column in frame for column in REPORT_COLUMNS):
        wanted = ", ".join(REPORT_COLUMNS)
        raise UserError(f"{table}: missing report text: one of {wanted} {describe_columns('report', found, hint)}")
    return frame


def _wanted(names: list[str], mapping: dict[str, str]) -> list[str] | None:
    """Columns that pretraining knows; None, all, where one is not there: the message shall list what is."""
    known = {mapping.get(name, name) for name in _COLUMNS} | {*_FILE_COLUMNS}
    wanted = {*mapping.values(), mapping.get("image_path", "image_path")}
    return [name for name in names if name in known] if wanted <= set(names) else None


def _warn_of_near_names(names: list[str], mapping: dict[str, str], table: Path) -> None:
    """Name a column that is ignored although it is spelt almost like one that would be used."""
    unknown = {plain_name(name): name for name in names if name not in _COLUMNS and name not in mapping.values()}
    for wanted in _COLUMNS:
        near = difflib.get_close_matches(plain_name(wanted), unknown, 1, cutoff=0.9)
        if near and wanted not in names and wanted not in mapping:
            theirs = unknown[near[0]]
            logger.warning(
                "%s: the column %s is not used; if it is %s, say so with --set data.columns.%s=%s",
                table.name, theirs, wanted, wanted, theirs,
            )  # fmt: skip


def _named(frame: pd.DataFrame, mapping: dict[str, str], table: Path) -> pd.DataFrame:
    """The frame with our names, after every entry of the mapping has been found to mean one column."""
    for ours, theirs in mapping.items():
        if ours not in _COLUMNS:
            hint = did_you_mean(ours, _COLUMNS) or f" They are {', '.join(_COLUMNS)}."
            raise UserError(f"data.columns.{ours} is none of our columns.{hint}")
        if theirs not in frame:
            found = describe_columns(theirs, list(frame.columns))
            raise UserError(f"{table}: data.columns.{ours} names the column {theirs}, which is not there {found}")
        if list(mapping.values()).count(theirs) > 1:
            raise UserError(f"{table}: data.columns uses the column {theirs} more than once")
        if ours != theirs and ours in frame and plain_name(ours) == plain_name(theirs):
            frame = frame.drop(columns=ours)  # two spellings of one name, of which the user chose
    return frame.rename(columns={theirs: ours for ours, theirs in mapping.items()})


def fill_columns(frame: pd.DataFrame, table: Path, images: Path) -> pd.DataFrame:
    """All columns of text and ids, stripped; images by absolute path.

    A row without a study is one of its own, a study without a patient is one of its own.

    Args:
        frame: of `read_columns`, and `row`; changed in place.
        table: where it comes from.
        images: folder where relative image paths start.

    Raises:
        UserError: a row without an image; names the first.
    """
    for column in (*REPORT_COLUMNS, *OPTIONAL_COLUMNS):
        frame[column] = column_reader(column)(frame[column]) if column in frame else ""
    paths = as_text(frame["image_path"])
    empty = frame.loc[paths == "", "row"]
    if len(empty):
        raise UserError(
            f"{table}: image_path is empty in row {empty.iloc[0]} ({len(empty)} rows); fill in or delete these rows"
        )
    frame["image_path"] = absolute_paths(paths, images)
    for column, fallback in (("study_id", "image_path"), ("patient_id", "study_id")):
        missing = frame[column] == ""
        if missing.any():
            logger.info("%s: %d rows without %s: %s is used", table.name, missing.sum(), column, fallback)
            frame.loc[missing, column] = frame.loc[missing, fallback]
    if (frame["split"] == "").all():  # nobody split the table; else an empty one keeps its row out, as in a manifest
        frame["split"] = "train"
    return frame


def usual_splits(cells: pd.Series, named: Iterable[str | None]) -> pd.Series:
    """(n,) train, val and test for words that mean them ("Training", "valid"); those that the settings name stay."""
    return cells.where(cells.isin(list(named)), parse_splits(cells).fillna(cells))


def check_ids(frame: pd.DataFrame, table: Path) -> None:
    """Stop unless every image has one row, and every study one patient."""
    paths = frame["image_path"]
    repeated = paths.duplicated(keep=False)
    if repeated.any():
        path = paths[repeated].iloc[0]
        raise UserError(
            f"{table}: duplicate id: image_path {shortened(path, 400)} stands in rows "
            f"{frame.loc[paths == path, 'row'].tolist()[:10]} "
            f"({paths[repeated].nunique()} images are repeated); keep one row for each image"
        )
    patients = frame.groupby("study_id")["patient_id"].nunique()
    if (patients > 1).any():
        study = patients.index[patients > 1][0]
        rows = frame.loc[frame["study_id"] == study, "row"].tolist()
        raise UserError(
            f"{table}: duplicate id: study_id {shortened(study)} belongs to {patients[study]} patients "
            f"(rows {', '.join(first_of(rows, 5))}; {(patients > 1).sum()} studies have several): give the studies "
            "of different patients ids of their own, for example patient and study joined"
        )


def warn_about_reports(frame: pd.DataFrame, name: str) -> None:
    """Say how many studies have rows with different reports, and whether the reports still have their headings."""
    shared = frame[frame["study_id"].duplicated(keep=False)]
    reports = shared.groupby("study_id")["text"].nunique()
    several = reports.index[reports > 1]
    if len(several):
        rows = shared.loc[shared["study_id"] == several[0], "row"].tolist()
        logger.warning(
            "%s: %d study ids have rows with different reports, for example %s (rows %s): each row is its own pair",
            name, len(several), several[0], ", ".join(first_of(rows, 5)),
        )  # fmt: skip
    sample = frame["text"].drop_duplicates().head(_SAMPLE)
    rules = [load_rules(language) for language in list_rules()]
    uncut = sum(any(has_heading(text, each) for each in rules) for text in sample)
    if uncut > len(sample) / 10:
        logger.warning(
            "%s: of the first %d reports %d hold headings of sections (such as IMPRESSION:), which are trained on as "
            "if they were findings; `cmcgns prepare table` cuts such reports",
            name, len(sample), uncut,
        )  # fmt: skip
