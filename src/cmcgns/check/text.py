"""Rules about reports (empty, repeated), and identifiers left in them or in an image file's own tags.

No finding quotes what it found.
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from PIL import Image

from cmcgns.check.rule import Finding, Loaded, rule
from cmcgns.data.images.dicom import IDENTIFYING_TAGS, filled_identifiers, parse_dicom
from cmcgns.data.images.files import load_file
from cmcgns.data.manifest import REPORT_COLUMNS
from cmcgns.data.reports.identifiers import find_identifiers, identifier_kinds
from cmcgns.data.reports.text import compose
from cmcgns.data.reports.tokens import MOST_UNKNOWN

# EXIF: ImageDescription, Artist, XPTitle, XPComment, XPAuthor, UserComment. Dates of the camera are no one's.
_EXIF_TAGS = (0x010E, 0x013B, 0x9C9B, 0x9C9C, 0x9C9D, 0x9286)
_COMMENTS = ("comment", "Comment", "Description", "Title", "Author", "Subject", "PatientName", "PatientID")


@rule("residual-identifiers", "a date, telephone number, name after a title, record number or e-mail in a report")
def residual_identifiers(loaded: Loaded) -> Iterator[Finding]:
    """Says kind, column and rows; never what stands there."""
    for column in REPORT_COLUMNS:
        for kind, rows in find_identifiers(loaded.frame[column]).items():
            yield loaded.finding("warning", f"{column} seems to hold a {kind}", rows)


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
    for column in REPORT_COLUMNS:
        filled |= loaded.frame[column].str.strip(" \t\n._-X") != ""
    reported = filled.groupby(loaded.frame["dataset"]).transform("any")
    message = "the report is empty, but other rows of the data set have one"
    yield loaded.finding("warning", message, reported & ~filled)


@rule("unknown-letters", "words of val or test in letters that no training report has: a tokenizer cannot know them")
def unknown_letters(loaded: Loaded) -> Iterator[Finding]:
    """Letters beyond ASCII; more than 5 % of the words of a split, as `pretrain` warns of unknown word pieces."""
    frame = loaded.frame
    texts = frame["findings"] + " " + frame["impression"] + " " + frame["report"]
    if not (frame["split"] == "train").any():
        return
    foreign = ~texts.map(str.isascii)
    known: set[str] = set()
    for text in texts[foreign & (frame["split"] == "train")]:
        known |= _letters(text)
    for split in ("val", "test"):
        inside = frame["split"] == split
        words = texts[inside & foreign].map(lambda text: sum(bool(_letters(word) - known) for word in text.split()))
        if words.sum() and words.sum() > MOST_UNKNOWN * sum(len(text.split()) for text in texts[inside]):
            message = f"{int(words.sum()):,} words of {split} hold letters that no training report has"
            yield loaded.finding("warning", message, words.index[words > 0].tolist())


def _letters(text: str) -> set[str]:
    return {letter for letter in compose(text).casefold() if letter.isalpha() and not letter.isascii()}


@rule("repeated-report", "several studies have the same report")
def repeated_report(loaded: Loaded) -> Iterator[Finding]:
    """Normal studies often share a template; in contrastive pretraining their pairs are false negatives."""
    frame = loaded.frame
    table = pd.DataFrame({column: pd.factorize(frame[column])[0] for column in (*REPORT_COLUMNS, "study_id")})
    table = table[(frame[list(REPORT_COLUMNS)] != "").any(axis=1).to_numpy()]
    table["text"] = table.groupby(list(REPORT_COLUMNS), sort=False).ngroup()
    studies = table.drop_duplicates(["text", "study_id"])["text"].value_counts()
    studies = studies[studies > 1]
    if len(studies):
        rows = table.index[table["text"].isin(studies.index)].to_numpy()
        stand = "report stands" if len(studies) == 1 else "reports stand"
        message = (
            f"{len(studies):,} {stand} in more than one study, {int(studies.sum()):,} studies in all; "
            f"the most frequent in {int(studies.iloc[0]):,}"
        )
        yield loaded.finding("note", message, rows)


def personal_metadata(image: Image.Image) -> set[str]:
    """Kinds of identifiers that the tags and comments of a PNG or JPEG seem to hold; never the values."""
    texts = [_as_text(image.info[name]) for name in _COMMENTS if name in image.info]
    exif = image.getexif()
    texts += [_as_text(exif[tag]) for tag in _EXIF_TAGS if tag in exif]
    return identifier_kinds(texts)


def _as_text(value: object) -> str:
    return value.decode("utf-8", "replace").replace("\0", "") if isinstance(value, bytes) else str(value)


def dicom_patient_tags(file: Path) -> list[str]:
    """Names of the DICOM tags that identify a person and are filled; an unreadable or other file has none."""
    try:
        content = load_file(file, ("DICOM",))[0].getvalue()
        return filled_identifiers(parse_dicom(content, file, [*IDENTIFYING_TAGS, "PatientID"]))
    except Exception:  # pydicom raises whatever a broken file leads it to; that it is broken is another rule's to say
        return []
