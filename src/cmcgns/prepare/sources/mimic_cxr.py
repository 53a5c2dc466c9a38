"""MIMIC-CXR-JPG and MIMIC-CXR: radiographs and reports of Beth Israel Deaconess Medical Center, Boston."""

import re
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO, Any

import pandas as pd

from cmcgns.common.errors import UserError
from cmcgns.data.manifest import REPORT_COLUMNS
from cmcgns.data.reports.section_rules import SectionRules, load_rules
from cmcgns.data.reports.sections import remove_marks, split_sections
from cmcgns.data.reports.text import MAX_REPORT
from cmcgns.data.tables import read_table
from cmcgns.data.vocabulary import CHEXPERT_FINDINGS, parse_splits, parse_views
from cmcgns.prepare.sources.base import PLACE, OtherLayout, SourceOptions, SourceTable, existing_files
from cmcgns.prepare.sources.cells import finish, label_values, look_up, read_rows

REPORT = re.compile(r"(?:.*/)?files/p\d\d/p\d{8}/s(\d{8})\.txt")
_IMAGE = re.compile(r"(?:.*/)?files/p\d\d/p(\d{8})/s(\d{8})/([^/]+)\.(?:jpg|dcm)")
_KEYS = ("dicom_id", "subject_id", "study_id")
Reports = dict[str, Callable[[], IO[Any]]]  # study -> what opens its report, as bytes


def zipped_reports(root: Path) -> Reports:
    """The reports in `mimic-cxr-reports.zip`; none without it.

    Raises:
        UserError: it is no readable zip file.
    """
    file = root / "mimic-cxr-reports.zip"
    if not file.is_file():
        return {}
    try:
        archive = zipfile.ZipFile(file)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} cannot be read as a zip file ({error}); download it again") from error
    members = ((REPORT.fullmatch(info.filename), info) for info in archive.infolist())
    return {match[1]: partial(archive.open, info) for match, info in members if match}


def add_reports(table: SourceTable, reports: Reports, rules: SectionRules) -> None:
    """Give every image findings, impression and text of its study; leave out those whose report cannot be used."""
    studies = table.frame["study_id"].unique().tolist()
    with ThreadPoolExecutor(8) as pool:  # reports are tiny files, often on a network drive
        texts = dict(zip(studies, pool.map(lambda study: _sections(reports.get(study), rules), studies), strict=True))
    problems = table.frame["study_id"].map({study: parts[3] for study, parts in texts.items()})
    for reason in sorted(set(problems) - {""}):
        table.leave_out(problems == reason, reason)
        problems = problems[problems != reason].reset_index(drop=True)
    for place, column in enumerate(REPORT_COLUMNS):  # last: they are most of the memory
        table.frame[column] = table.frame["study_id"].map({study: parts[place] for study, parts in texts.items()})


def _sections(open_report: Callable[[], IO[Any]] | None, rules: SectionRules) -> tuple[str, str, str, str]:
    """Findings, impression and whole text of a report, and why it cannot be used."""
    if open_report is None:
        return "", "", "", "its report is not there"
    try:
        with open_report() as file:
            content: bytes = file.read(MAX_REPORT + 1)  # what an archive's directory says of the size is not trusted
        text = "\n".join(content.decode("utf-8-sig").splitlines())
    except UnicodeDecodeError:
        return "", "", "", "its report is not UTF-8 text"
    except (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error, EOFError):
        return "", "", "", "its report cannot be read (damaged or encrypted)"
    if len(content) > MAX_REPORT:
        return "", "", "", f"its report has more than {MAX_REPORT:,} bytes"
    sections = split_sections(text, rules)
    findings, impression = sections.get("findings", ""), sections.get("impression", "")
    problem = "" if findings or impression else "its report has neither findings nor impression"
    return findings, impression, remove_marks(text, rules).strip(), problem


def read(root: Path, options: SourceOptions) -> SourceTable:
    """Every image whose report is there.

    Args:
        root: the folder with `files` and the tables.
        options: the rules for sections; the official split serves both split rules.

    Raises:
        UserError: no images, no reports, or a table that cannot be read.
    """
    table = SourceTable()
    images, loose = _walk(root, table)
    if images.empty:
        raise OtherLayout(f"{root}: there is no image like files/p10/p10000032/s50414267/*.jpg (or .dcm)")
    reports = zipped_reports(root) | loose
    if not reports:
        raise OtherLayout(
            f"{root}: no reports; put mimic-cxr-reports.zip there or unpack it (files/p10/…/s50414267.txt)"
        )
    _add_rows(table, root, images)
    _add_split(root, table)
    _add_labels(root, table)
    add_reports(table, reports, load_rules(options.rules))
    table.frame = table.frame.assign(
        dataset="mimic-cxr",
        patient_id="mimic-cxr:p" + table.frame["subject_id"],
        study_id="mimic-cxr:s" + table.frame["study_id"],
    )
    return finish(table, "radiologist_")


def _walk(root: Path, table: SourceTable) -> tuple[pd.DataFrame, Reports]:
    """Images and loose reports by one walk; asking for 377,110 files by name would take much longer."""
    images: list[tuple[str, ...]] = []
    reports: Reports = {}
    for path in existing_files(root, table=table):
        if match := _IMAGE.fullmatch(path):
            images.append((path, match[3], match[1], match[2]))
        elif match := REPORT.fullmatch(path):
            reports[match[1]] = partial((root / path).open, "rb")
    frame = pd.DataFrame(images, columns=["source", *_KEYS], dtype="str")
    frame = frame.sort_values("source", ascending=False).drop_duplicates("dicom_id")  # .jpg rather than .dcm
    return frame.sort_values("source", ignore_index=True), reports


def _table(root: Path, kind: str) -> Path | None:
    """The newest `mimic-cxr-2.…-kind.csv` or `.csv.gz`, in the root or one folder below."""
    found = [*root.glob(f"mimic-cxr-2.*-{kind}.csv*"), *root.glob(f"*/mimic-cxr-2.*-{kind}.csv*")]
    tables = [file for file in found if file.name.endswith((".csv", ".csv.gz"))]
    return max(tables, key=lambda file: file.name, default=None)


def _add_rows(table: SourceTable, root: Path, images: pd.DataFrame) -> None:
    """One row per image that the tables know; without tables, one per image file."""
    file = _table(root, "metadata") or _table(root, "split")
    if file is None:
        table.frame = images.assign(view="", **{PLACE: images["source"]})
        table.notes.append(
            "view: no metadata table is there; DICOM files may state it when the images are read, else it stays empty"
        )
        return
    listed = read_rows(file, table, _KEYS)
    table.frame = rows = listed[list(_KEYS)].assign(
        view=parse_views(listed["ViewPosition"])[0] if "ViewPosition" in listed else "",
        **{PLACE: listed[PLACE] + " (" + listed["dicom_id"] + ")"},
        source=listed["dicom_id"].map(images.set_index("dicom_id")["source"]),
    )
    unlisted = images.loc[~images["dicom_id"].isin(listed["dicom_id"]), "source"]
    table.also_left_out(unlisted, f"{file.name} does not list it")
    if "ViewPosition" not in listed:
        table.notes.append(f"view: {file.name} does not state it; mimic-cxr-2.0.0-metadata.csv.gz does")
    table.leave_out(rows.duplicated("dicom_id"), "the image is listed twice")
    table.leave_out(table.frame["source"].isna(), "the image is not there")


def _add_split(root: Path, table: SourceTable) -> None:
    file = _table(root, "split")
    if file is None:
        table.frame["split"] = ""
        table.notes.append("split: empty, because mimic-cxr-2.0.0-split.csv.gz (of MIMIC-CXR-JPG) is not there")
        return
    listed = read_table(file, ("dicom_id", "split")).drop_duplicates("dicom_id").set_index("dicom_id")["split"]
    table.frame["split"] = parse_splits(look_up(table.frame["dicom_id"], listed))
    table.leave_out(table.frame["split"].isna(), f"{file.name} gives no known split")
    table.notes.append("split: the official one, under v1 and legacy alike")


def _add_labels(root: Path, table: SourceTable) -> None:
    """14 labels of the study: CheXpert's, else NegBio's; a radiologist's become columns of their own."""
    file = _table(root, "chexpert") or _table(root, "negbio")
    if file is None:
        table.notes.append("labels: none, because mimic-cxr-2.0.0-chexpert.csv.gz is not there")
    else:
        table.notes.append(f"labels: {file.name}")
        _join_labels(table, file, "label_")
    if tested := _table(root, "test-set-labeled"):
        table.notes.append(f"radiologist_…: labels by a radiologist for a part of the test split, {tested.name}")
        _join_labels(table, tested, "radiologist_")


def _join_labels(table: SourceTable, file: Path, prefix: str) -> None:
    listed = read_table(file, ("study_id",)).rename(columns={"Airspace Opacity": "Lung Opacity"})
    listed = listed.drop_duplicates("study_id").set_index("study_id")
    for label in sorted(CHEXPERT_FINDINGS):
        if label not in listed:
            raise UserError(f"{file}: missing column {label}")
        table.frame[prefix + label], wrong = label_values(look_up(table.frame["study_id"], listed[label]))
        table.leave_out(wrong, f"{label} in {file.name} is none of 1.0, 0.0, -1.0 and empty")
