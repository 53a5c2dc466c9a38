"""MIMIC-CXR's reports: one text file a study, unpacked or in the archive."""

import re
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from cmcgns.data.section_rules import SectionRules
from cmcgns.data.sections import remove_marks, split_sections
from cmcgns.data.sources.base import SourceTable
from cmcgns.errors import UserError

MAX_REPORT = 1_000_000  # bytes; real reports have a few thousand
REPORT = re.compile(r"(?:.*/)?files/p\d\d/p\d{8}/s(\d{8})\.txt")
Reports = dict[str, Callable[[], bytes]]  # study -> what reads its report


def read_file(path: Path) -> bytes:
    """A report, cut behind the bound."""
    with path.open("rb") as file:
        return file.read(MAX_REPORT + 1)


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
    return {match[1]: partial(_read_member, archive, info) for match, info in members if match}


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with archive.open(info) as content:  # what the directory says of the size is not trusted
        return content.read(MAX_REPORT + 1)


def add_reports(table: SourceTable, reports: Reports, rules: SectionRules) -> None:
    """Give every image findings, impression and text of its study; leave out those whose report cannot be used.

    Args:
        table: its frame has `study_id` and `where`.
        reports: of all studies.
        rules: for sections and marks.
    """
    studies = table.frame["study_id"].unique().tolist()
    with ThreadPoolExecutor(8) as pool:  # reports are tiny files, often on a network drive
        texts = dict(zip(studies, pool.map(lambda study: _sections(reports.get(study), rules), studies), strict=True))
    problems = table.frame["study_id"].map({study: parts[3] for study, parts in texts.items()})
    for reason in sorted(set(problems) - {""}):
        table.leave_out(problems == reason, table.frame["where"], reason)
        problems = problems[problems != reason].reset_index(drop=True)
    for place, column in enumerate(("findings", "impression", "report")):  # last: they are most of the memory
        table.frame[column] = table.frame["study_id"].map({study: parts[place] for study, parts in texts.items()})


def _sections(read_bytes: Callable[[], bytes] | None, rules: SectionRules) -> tuple[str, str, str, str]:
    """Findings, impression and whole text of a report, and why it cannot be used."""
    if read_bytes is None:
        return "", "", "", "its report is not there"
    try:
        content = read_bytes()
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
