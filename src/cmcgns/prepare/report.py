"""What `prepare` found, as numbers for programs and as a page for people."""

from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from PIL import Image

from cmcgns.common.errors import first_of
from cmcgns.common.files import write_text
from cmcgns.common.page import data_url, page_template
from cmcgns.data.images.files import open_picture
from cmcgns.data.images.read import gray_of
from cmcgns.data.manifest import LABEL, REPORT_COLUMNS, label_columns
from cmcgns.data.reports.identifiers import find_identifiers
from cmcgns.prepare.sources.base import Source, SourceTable

_SHOWN = 24  # thumbnails
_LISTED = 200  # rows of the table of what was left out; the JSON has all of them
_SHOWN_STUDIES = 5  # in a line about identifiers; the JSON has all of them
_WORDS = (0, 1, 5, 10, 20, 30, 40, 50, 75, 100, 150, 200, 300, 500)


def summarise(source: Source, frame: pd.DataFrame, table: SourceTable, about: dict[str, Any]) -> dict[str, Any]:
    """Counts of a prepared dataset, ready for JSON; its rows have the manifest's columns and types."""
    return {
        "source": {"name": source.name, "title": source.title, "licence": source.licence, "url": source.url},
        "settings": about,
        "images": len(frame),
        "studies": int(frame["study_id"].nunique()),
        "patients": int(frame["patient_id"].nunique()),
        "splits": _counts_by_split(frame),
        "views": {name or "not stated": int(n) for name, n in frame["view"].value_counts().items()},
        "labels": {
            name.removeprefix(LABEL): _label_counts(frame[name], frame["split"]) for name in label_columns(frame)
        },
        "boxes": _box_counts(frame),
        "masks": int((frame["mask_path"] != "").sum()),
        "words": _word_counts(frame),
        "notes": table.notes,
        "identifiers": identifiers_by_kind(frame),
        "reasons": _reasons(table),
        "left_out": table.left_out,
    }


def _counts_by_split(frame: pd.DataFrame) -> dict[str, Any]:
    groups = frame.groupby(frame["split"].where(frame["split"] != "", "none"), sort=False)
    studies, patients = groups["study_id"].nunique(), groups["patient_id"].nunique()
    counts = pd.DataFrame({"images": groups.size(), "studies": studies, "patients": patients})
    return {str(name): row for name, row in counts.to_dict("index").items()}


def _label_counts(values: pd.Series, splits: pd.Series) -> dict[str, Any]:
    named = {"positive": 1, "negative": 0, "uncertain": -1}
    counts: dict[str, Any] = {name: int((values == value).sum()) for name, value in named.items()}
    counts["not stated"] = int(values.isna().sum())
    by_split = (values == 1).groupby(splits.where(splits != "", "none"), sort=False).sum()
    return counts | {"positive by split": {str(name): int(count) for name, count in by_split.items()}}


def _box_counts(frame: pd.DataFrame) -> dict[str, int]:
    boxes = frame["boxes"]
    return {
        "images annotated": int((boxes != "").sum()),
        "images with boxes": int((~boxes.isin(["", "[]"])).sum()),
        "boxes": int(boxes.str.count('"width"').sum()),
    }


def _word_counts(frame: pd.DataFrame) -> dict[str, int]:
    """Histogram of the length of the reports in words; empty without reports."""
    findings, impression, report = (frame[name].str.count(r"\S+") for name in REPORT_COLUMNS)
    in_sections = findings + impression
    words = in_sections.where(in_sections > 0, report)
    if not words.any():
        return {}
    edges = [*_WORDS, np.inf]
    counts, _ = np.histogram(words, bins=edges)
    names = [f"{low}" if high == low + 1 else f"{low}–{high - 1:.0f}" for low, high in pairwise(edges)]
    names[-1] = f"{_WORDS[-1]} or more"
    last = int(np.flatnonzero(counts)[-1]) + 1
    return {name: int(count) for name, count in zip(names[:last], counts[:last], strict=True)}


def _reasons(table: SourceTable) -> dict[str, int]:
    reasons = pd.Series([_kind(entry["reason"]) for entry in table.left_out], dtype="str")
    return {str(reason): int(count) for reason, count in reasons.value_counts().items()}


def _kind(reason: str) -> str:
    """A reason without the file it speaks of, so that equal ones can be counted."""
    head, colon, rest = reason.partition(": ")
    return rest if colon and ("/" in head or "." in head) else reason


def identifiers_by_kind(frame: pd.DataFrame) -> dict[str, list[str]]:
    """Kinds of identifiers that reports seem to hold, and in which studies; never what they are."""
    studies: dict[str, set[str]] = {}
    for column in REPORT_COLUMNS:
        for kind, rows in find_identifiers(frame[column], marks=True).items():
            studies.setdefault(kind, set()).update(frame["study_id"].iloc[rows])
    return {kind: sorted(found) for kind, found in studies.items()}


def describe_identifiers(found: dict[str, list[str]]) -> list[str]:
    """One line for each kind: how many studies, and some of them."""
    return [
        f"reports of {len(studies):,} studies seem to hold a {kind}: {', '.join(first_of(studies, _SHOWN_STUDIES))}"
        for kind, studies in found.items()
    ]


def write_prepare_page(path: Path, summary: dict[str, Any], frame: pd.DataFrame, folder: Path) -> None:
    """Write the page: counts, histograms, sample thumbnails, what was left out and why."""
    rows = frame.sample(min(_SHOWN, len(frame)), random_state=0)
    samples = [
        {"image": _thumbnail(folder / row["image_path"]), "caption": _caption(row)} for _, row in rows.iterrows()
    ]
    page = page_template("cmcgns.prepare", "report.html.j2").render(
        summary=summary, samples=samples, listed=summary["left_out"][:_LISTED], limit=_LISTED,
        identifiers=describe_identifiers(summary["identifiers"]),
    )  # fmt: skip
    write_text(path, page)


def _caption(row: pd.Series) -> str:
    positive = [str(name) for name, cell in row.items() if str(cell) == "1"]
    labels = [name.removeprefix(LABEL) for name in positive if name.startswith(LABEL)]
    parts = (row["split"], row["view"], ", ".join(labels[:3]))
    return " · ".join(str(part) for part in parts if part)


def _thumbnail(path: Path) -> Markup:
    with open_picture(path) as image:
        gray = Image.fromarray(gray_of(image))
        gray.thumbnail((150, 150))
        buffer = BytesIO()
        gray.save(buffer, format="JPEG", quality=80)
    return data_url("jpeg", buffer.getvalue())
