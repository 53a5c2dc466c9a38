"""What a page is made of: chapters, headings, tables, pictures, and what is shown on demand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from cmcgns.evaluation.report.sources import Source
from cmcgns.evaluation.report.tables import Table


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
    sources: list[Source] = field(default_factory=list)
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
