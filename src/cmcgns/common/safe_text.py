"""Texts of data, harmless where they are shown: on a terminal, in a spreadsheet, in Markdown."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import category

from rich.markup import escape

from cmcgns.common.files import write_text

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_FORMULA = re.compile(r"[\s]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r]")  # full-width signs count in some programs
_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*")
_SIGNS = re.compile(r"([\\`*\[\]|~$<>&#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


def without_controls(text: str, keep: str = "") -> str:
    """A text whose control characters are shown as escapes (`\\x1b`), but for those in `keep`."""
    return "".join(char if char in keep or category(char) not in ("Cc", "Cs") else ascii(char)[1:-1] for char in text)


def terminal_text(text: str) -> str:
    """A text for a console of Rich: no markup, no control characters."""
    return escape(without_controls(text))


def markdown_text(text: object) -> str:
    """Text that Markdown takes as it is: one line, no tables, links, emphasis or HTML."""
    line = " ".join(str(text).split())
    return _SIGNS.sub(lambda found: _ENTITIES.get(found[0], "\\" + found[0]), line)


def safe_cell(value: object) -> object:
    """A text that a spreadsheet would run as a formula gets an apostrophe in front; all else stays as it is.

    Our own tables (manifests) are never written so: they have to come back as they were.
    """
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return "'" + value
    return value


def write_spreadsheet(path: Path, header: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a report as csv, atomically; missing values (None) are empty.

    Raises:
        UserError: the disk refuses the file.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(safe_cell, header))
    writer.writerows(map(safe_cell, row) for row in rows)
    write_text(path, text.getvalue())


def write_rows(path: Path, kind: type[DataclassInstance], rows: Iterable[DataclassInstance]) -> None:
    """Write rows of one data class: one line a row, a column a field, full precision.

    Raises:
        UserError: the disk refuses the file.
    """
    write_spreadsheet(path, [field.name for field in fields(kind)], (asdict(row).values() for row in rows))
