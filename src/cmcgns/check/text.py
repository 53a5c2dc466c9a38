"""Rules about reports (empty, repeated), and identifiers left in them or in an image file's own tags.

No finding quotes what it found.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd
from PIL import Image

from cmcgns.check.rule import Finding, Loaded, positions, rule
from cmcgns.data.images.dicom import IDENTIFYING_TAGS

SECTIONS = ("findings", "impression", "report")

# EXIF: ImageDescription, Artist, XPTitle, XPComment, XPAuthor, UserComment. Dates of the camera are no one's.
_EXIF_TAGS = (0x010E, 0x013B, 0x9C9B, 0x9C9C, 0x9C9D, 0x9286)
_COMMENTS = ("comment", "Comment", "Description", "Title", "Author", "Subject", "PatientName", "PatientID")

_MONTH = (
    r"(?:jan(?:uary|uar|vier)?|feb(?:ruary|ruar)?|mar(?:ch)?|apr(?:il)?|june?|july?|aug(?:ust)?|sept?(?:ember)?|"
    r"oct(?:ober)?|okt(?:ober)?|nov(?:ember)?|dec(?:ember)?|dez(?:ember)?|märz|mai|juni|juli|enero|febrero|marzo|"
    r"abril|mayo|junio|julio|agosto|septiembre|octubre|noviembre|diciembre|may)"
)
_LONG_MONTH = r"(?:january|february|march|april|june|july|august|september|october|november|december)"
_YEAR = r"(?:19|20)\d\d"
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_MONTH_NUMBER = r"(?:0?[1-9]|1[0-2])"

# What each kind looks like. Only what both RE2 (which searches a million reports in seconds) and `re` read alike.
# A year alone, a day and month in figures ("10/12"), levels and sizes are no identifiers or too often something else.
PATTERNS = {
    "date": "|".join(
        (
            rf"\b\d{{1,2}}[/.-]\d{{1,2}}[/.-]{_YEAR}\b",
            rf"\b{_YEAR}[/.-]{_MONTH_NUMBER}[/.-]{_DAY}\b",
            rf"\b{_MONTH_NUMBER}/{_DAY}/\d\d\b",
            rf"\b{_DAY}/{_MONTH_NUMBER}/\d\d\b",
            r"\b[0-3]\d\.[01]\d\.\d\d\b",
            rf"(?i:\b{_MONTH}\b\.? ?{_DAY}(?:st|nd|rd|th)?,? {_YEAR}\b)",
            rf"(?i:\b{_DAY}(?:st|nd|rd|th|\.)?[ -](?:of |de )?{_MONTH}\b\.?,?[ -](?:of |de |del )?{_YEAR}\b)",
            rf"(?i:\b{_LONG_MONTH} {_DAY}(?:st|nd|rd|th)?\b)",
            rf"(?i:\b{_DAY}(?:st|nd|rd|th)? (?:of )?{_LONG_MONTH}\b)",
        )
    ),
    "telephone number": "|".join(
        (
            r"\(\d{3}\) ?\d{3}[-. ]\d{4}\b",
            r"\b\d{3}[-.]\d{3}[-.]\d{4}\b",
            r"(?i:\b(?:phone|telephone|tel|fax|pager|paged at|beeper|mobile|call back)\b\.?:? ?)"
            r"(?i:(?:number|no\.?|#|at)?:? ?)"
            r"\+?\d[\d ()/.-]{3,}\d",
            r"(?:^|[^\w.])\+\d{1,3}[ -]?\(?\d{1,4}\)?[ -]?\d{2,4}[ -]?\d{2,}",
        )
    ),
    "name after a title": "|".join(
        (
            r"\b(?:Dr|Mr|Mrs|Ms|Prof|Frau|Herr|Sra|Srta|Sr)\.? (?:[A-Z]\. ?)*[A-ZÀ-ÖØ-Þ][a-zß-öø-ÿ'’-]+",
            r"\b(?:Dr|Mr|Mrs|Ms|Prof)\. (?:[A-Z]\. ?)*(?:[A-WYZ][A-Z]{2,}|X[A-WYZ][A-Z]+)\b",
            r"\b(?:DR|MR|MRS|MS|PROF)\. (?:[A-Z]\. ?)*(?:[A-WYZ][A-Z]{2,}|X[A-WYZ][A-Z]+)\b",
        )
    ),
    "record number": "|".join(
        (
            r"(?i:\b(?:mrn|medical record|patient id|accession|record number|ssn)\b[^0-9\n]{0,15})\d{4,}",
            r"\b\d{3}-\d\d-\d{4}\b",
            r"(?:^|[^\d.,])\d{7,}\b",
        )
    ),
    "e-mail address": r"[\w.+-]+@[\w-]+\.\w\w+",
}

ANY = "|".join(f"(?:{pattern})" for pattern in PATTERNS.values())


@rule("residual-identifiers", "a date, telephone number, name after a title, record number or e-mail in a report")
def residual_identifiers(loaded: Loaded) -> Iterator[Finding]:
    """Says kind, column and rows; never what stands there."""
    for column in SECTIONS:
        texts = loaded.frame[column]
        suspects = positions(texts.str.contains(ANY, regex=True))  # one pass over all, the kinds on what is left
        some = texts.iloc[suspects]
        for kind, pattern in PATTERNS.items():
            hits = positions(some.str.contains(pattern, regex=True))
            yield loaded.finding("warning", f"{column} seems to hold a {kind}", [suspects[hit] for hit in hits])


@rule("identifiers-in-source", "the DICOM files that `prepare` read hold a person's data (the stored images do not)")
def identifiers_in_source(loaded: Loaded) -> Iterator[Finding]:
    """`prepare` keeps the names of such tags in a column of their own, never what stands in them."""
    if "identifying_tags" not in loaded.frame:
        return
    tags = loaded.frame["identifying_tags"].fillna("").astype("str")
    names = sorted({name.strip() for cell in tags.unique() for name in cell.split(",") if name.strip()})
    yield loaded.finding("note", f"the source files have filled tags: {', '.join(names)}", tags != "")


@rule("empty-report", "no report in a data set that has reports")
def empty_report(loaded: Loaded) -> Iterator[Finding]:
    """Marks of removed text ("___", "XXXX") alone are no report."""
    filled = pd.Series(False, index=loaded.frame.index)
    for column in SECTIONS:
        filled |= loaded.frame[column].str.strip(" \t\n._-X") != ""
    reported = filled.groupby(loaded.frame["dataset"]).transform("any")
    message = "the report is empty, but other rows of the data set have one"
    yield loaded.finding("warning", message, reported & ~filled)


@rule("repeated-report", "several studies have the same report")
def repeated_report(loaded: Loaded) -> Iterator[Finding]:
    """Normal studies often share a template; in contrastive pretraining their pairs are false negatives."""
    frame = loaded.frame
    table = pd.DataFrame({column: pd.factorize(frame[column])[0] for column in (*SECTIONS, "study_id")})
    table = table[(frame[list(SECTIONS)] != "").any(axis=1).to_numpy()]
    table["text"] = table.groupby(list(SECTIONS), sort=False).ngroup()
    studies = table.drop_duplicates(["text", "study_id"])["text"].value_counts()
    studies = studies[studies > 1]
    if len(studies):
        rows = table.index[table["text"].isin(studies.index)].to_numpy()
        message = (
            f"{len(studies):,} reports stand in more than one study, {int(studies.sum()):,} studies in all; "
            f"the most frequent in {int(studies.iloc[0]):,}"
        )
        yield loaded.finding("note", message, rows)


def identifier_kinds(texts: Iterable[str]) -> set[str]:
    """Kinds of identifiers that texts seem to hold (keys of :data:`PATTERNS`), for tags and comments of images."""
    return {kind for text in texts for kind, pattern in PATTERNS.items() if re.search(pattern, text)}


def personal_metadata(image: Image.Image) -> set[str]:
    """Kinds of identifiers that the tags and comments of a PNG or JPEG seem to hold; never the values."""
    texts = [_as_text(image.info[name]) for name in _COMMENTS if name in image.info]
    exif = image.getexif()
    texts += [_as_text(exif[tag]) for tag in _EXIF_TAGS if tag in exif]
    return identifier_kinds(texts)


def _as_text(value: object) -> str:
    return value.decode("utf-8", "replace").replace("\0", "") if isinstance(value, bytes) else str(value)


def is_dicom(file: Path) -> bool:
    """Whether a file says that it is DICOM."""
    try:
        with file.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except (OSError, ValueError):
        return False


def dicom_patient_tags(file: Path) -> list[str]:
    """Names of the DICOM tags that identify a person and are filled; an unreadable file has none."""
    import pydicom

    try:
        data = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(IDENTIFYING_TAGS))
        return [tag for tag in IDENTIFYING_TAGS if str(data.get(tag, "") or "").strip(" ^_X")]
    except Exception:  # pydicom raises whatever a broken file leads it to; that it is broken is another rule's to say
        return []
