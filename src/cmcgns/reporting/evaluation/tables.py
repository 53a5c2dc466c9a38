"""What a page is made of, before it becomes Markdown or HTML: tables, chapters, pictures, folds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from matplotlib.figure import Figure

from cmcgns.evaluation.results import ResultRow
from cmcgns.reporting.evaluation.names import DASH, is_number, number, span
from cmcgns.reporting.evaluation.selection import Selection

UNDEFINED = "undefined on these test rows"
LEAKED = "leakage: the top of the page says what was seen before"
NO_INTERVAL = "no interval: it needs two or more patients and resamples in which the figure is defined"
LEAK = "†"


@dataclass(frozen=True)
class Entry:
    """A cell: value, its interval, its spread over seeds, the marks of its notes; whether it is from a result row."""

    value: str
    interval: str = ""
    spread: str = ""
    marks: tuple[str, ...] = ()
    is_result: bool = False

    @property
    def text(self) -> str:
        """All in one line, without the marks."""
        value = f"{self.value} ({self.interval})" if self.interval else self.value
        return ", ".join(part for part in (value, self.spread) if part)


@dataclass(frozen=True)
class Line:
    """A row: what it is about, and its cells.

    Attributes:
        name: e.g. a metric.
        published: copied from a paper, not measured.
        code: a protocol's name, where the line is about one.
    """

    name: str
    entries: tuple[Entry, ...]
    published: bool = False
    code: str = ""

    def relabel(self, marks: Mapping[str, str]) -> Line:
        """The line with other marks; those without a new one are left out."""
        entries = (replace(cell, marks=tuple(marks[m] for m in cell.marks if m in marks)) for cell in self.entries)
        return replace(self, entries=tuple(entries))


@dataclass(frozen=True)
class ColumnGroup:
    """Columns that belong together under one heading."""

    title: str
    code: str
    columns: tuple[str, ...]


@dataclass
class Table:
    """A table with everything that must be printed with it.

    Attributes:
        title: above the table.
        first: heading of the first column.
        notes: mark and text; no mark: it holds for the whole table.
    """

    title: str
    first: str
    blocks: tuple[ColumnGroup, ...]
    lines: list[Line]
    notes: list[tuple[str, str]]

    def __post_init__(self) -> None:
        """A note that every figure of the table has needs no mark."""
        cells = [cell for line in self.lines if not line.published for cell in line.entries if cell.is_result]
        if not cells or all(cell.value == DASH for cell in cells):
            return
        common = set.intersection(*(set(cell.marks) for cell in cells)) - {LEAK}
        if common:
            rest = [mark for mark, _ in self.notes if mark not in common | {"", LEAK}]
            marks = {LEAK: LEAK} | {mark: letters(index) for index, mark in enumerate(rest)}
            self.lines = [line.relabel(marks) for line in self.lines]
            self.notes = [(marks.get(mark, ""), text) for mark, text in self.notes]

    @property
    def columns(self) -> int:
        """Without the first."""
        return sum(len(block.columns) for block in self.blocks)


@dataclass
class Notes:
    """Footnotes of one table: equal texts share a letter."""

    marks: dict[str, str] = field(default_factory=dict)
    leaked: bool = False

    def mark(self, text: str) -> str:
        """The letter of a note."""
        return self.marks.setdefault(text, letters(len(self.marks)))

    def listed(self) -> list[tuple[str, str]]:
        """Mark and text of each."""
        return ([(LEAK, LEAKED)] if self.leaked else []) + [(mark, text) for text, mark in self.marks.items()]


def entry(selection: Selection, row: ResultRow | None, protocol: str, fraction: float | None, notes: Notes) -> Entry:
    """The cell of a row."""
    if row is None:
        return Entry(DASH, spread=selection.why_missing(protocol, fraction))
    marks = []
    if row.leakage:
        notes.leaked = True
        marks.append(LEAK)
    if row.value is None or not is_number(row.value):
        marks.append(notes.mark(row.note or UNDEFINED))
        return Entry(DASH, marks=tuple(marks), is_result=True)
    interval = span(row.low, row.high)
    if row.note:
        marks.append(notes.mark(row.note))
    elif not interval:
        marks.append(notes.mark(NO_INTERVAL))
    spread = _spread(row, selection.expected_seeds(protocol, fraction))
    return Entry(number(row.value), interval, spread, tuple(marks), is_result=True)


def _spread(row: ResultRow, expected: int) -> str:
    """`sd 0.004`, with the number of seeds where it is not the expected one."""
    parts = [] if row.sd is None or not is_number(row.sd) else [f"sd {number(row.sd)}"]
    if row.fraction is not None and row.seeds < expected:
        parts.append(f"{row.seeds} of {expected} seeds")
    return ", ".join(parts)


def letters(index: int) -> str:
    """0 -> a, 25 -> z, 26 -> aa."""
    first, last = divmod(index, 26)
    return (letters(first - 1) if first else "") + chr(ord("a") + last)


@dataclass(frozen=True)
class Picture:
    """A plot with its words."""

    name: str
    figure: Figure
    alt: str
    caption: str

    @property
    def width(self) -> int:
        """On the page, in pixels."""
        return round(self.figure.get_figwidth() * 98)


@dataclass(frozen=True)
class Fold:
    """Tables and pictures that are shown on demand."""

    title: str
    inside: tuple[Table | Picture, ...]


@dataclass
class Part:
    """Tables and pictures under one heading.

    Attributes:
        title: the heading.
        code: a protocol's name, where it is about one.
        text: below the heading.
        sources: what everything in it was measured on; empty where an earlier part says it.
        blocks: in order.
    """

    title: str
    code: str = ""
    text: str = ""
    sources: list[dict[str, Any]] = field(default_factory=list)
    blocks: list[Table | Picture | Fold] = field(default_factory=list)


@dataclass
class Section:
    """A chapter of the page."""

    anchor: str
    title: str
    text: str = ""
    parts: list[Part] = field(default_factory=list)


def pictures_of(sections: Iterable[Section]) -> Iterator[Picture]:
    """All pictures, folded ones too, in the order of the page."""
    for block in (block for section in sections for part in section.parts for block in part.blocks):
        inside = block.inside if isinstance(block, Fold) else (block,)
        yield from (one for one in inside if isinstance(one, Picture))
