"""What a check is and what it says: rules by name, each giving findings."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from cmcgns.check.box_table import parse_boxes
from cmcgns.check.images import ImageFacts

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
MOST_GROUPS = 1_000  # findings of one rule that are spelled out; the others share one finding
_SHOWN_ROWS = 5


@dataclass(frozen=True)
class Finding:
    """One fault.

    Attributes:
        rule: name of the rule that found it.
        severity: an error makes results wrong or training stop; a warning may; a note is for the user to judge.
        where: file, or manifest and rows, as shown. Rows are shown counted from 1, as in all messages.
        message: what is wrong; never a patient's name or another identifier found in text.
        rows: positions in the manifest, counted from 0.
        drop: those of them that :func:`cmcgns.check.fix.fix` leaves out.
        manifest: the manifest the rows belong to.
    """

    rule: str
    severity: Severity
    where: str
    message: str
    rows: tuple[int, ...] = ()
    drop: tuple[int, ...] = ()
    manifest: Path = Path()


@dataclass(frozen=True)
class Loaded:
    """A manifest in memory.

    Attributes:
        file: the parquet file.
        frame: its rows, in the schema's types.
        images: what opening the stored images showed; None where they were not opened.
    """

    file: Path
    frame: pd.DataFrame = field(repr=False)
    images: ImageFacts | None = field(default=None, repr=False)

    @cached_property
    def boxes(self) -> tuple[pd.DataFrame, list[int]]:
        """The boxes as numbers, and the rows where there is no reading them (:func:`parse_boxes`)."""
        return parse_boxes(self.frame)

    def finding(
        self,
        severity: Severity,
        message: str,
        rows: Iterable[int],
        drop: Iterable[int] | None = None,
        where: str = "",
    ) -> Finding:
        """A finding about rows of this manifest; the rule's name is filled in by :func:`rule`.

        Args:
            severity: how bad it is.
            message: what is wrong.
            rows: positions from 0.
            drop: what `fix` leaves out; by default all rows of an error, and none otherwise.
            where: the file, if one file is at fault; by default the manifest and the rows.
        """
        rows = tuple(int(row) for row in rows)
        drop = tuple(int(row) for row in drop) if drop is not None else rows if severity == "error" else ()
        return Finding("", severity, where or f"{self.file}, {show_rows(rows)}", message, rows, drop, self.file)


def show_rows(rows: Sequence[int]) -> str:
    """Positions from 0 as people read them: "rows 1, 5, 9 and 12 more"."""
    shown = ", ".join(str(row + 1) for row in rows[:_SHOWN_ROWS])
    more = f" and {len(rows) - _SHOWN_ROWS:,} more" if len(rows) > _SHOWN_ROWS else ""
    return f"row{'s' if len(rows) != 1 else ''} {shown}{more}"


def positions(mask: "pd.Series[bool]") -> list[int]:
    """Where a mask holds, counted from 0; missing values do not hold."""
    return np.flatnonzero(mask.fillna(False).to_numpy(dtype=bool)).tolist()


Check = Callable[[Sequence[Loaded]], Iterable[Finding]]


@dataclass(frozen=True)
class Rule:
    """A named check.

    Attributes:
        name: kebab-case.
        description: one line, said of the fault.
        opens_images: whether it needs the stored images' facts.
        check: the function.
    """

    name: str
    description: str
    opens_images: bool
    check: Check


RULES: dict[str, Rule] = {}


def rule(name: str, description: str, opens_images: bool = False) -> Callable[[Check], Check]:
    """Register a function over all manifests together as a rule; its findings get the rule's name."""

    def register(check: Check) -> Check:
        def named(manifests: Sequence[Loaded]) -> Iterator[Finding]:
            for finding in check(manifests):
                yield replace(finding, rule=name)

        RULES[name] = Rule(name, description, opens_images, named)
        return named

    return register


def each(check: Callable[[Loaded], Iterable[Finding]]) -> Check:
    """A function over one manifest as one over several, taken one by one."""

    def over_all(manifests: Sequence[Loaded]) -> Iterator[Finding]:
        for loaded in manifests:
            yield from check(loaded)

    return over_all


def rules() -> dict[str, str]:
    """Name -> one-line description of every rule."""
    return {name: entry.description for name, entry in RULES.items()}
