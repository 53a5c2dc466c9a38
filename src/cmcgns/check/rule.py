"""Rules and what they work with: manifests in memory, facts about their images, findings."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cmcgns.common.errors import first_of
from cmcgns.data.paths import image_file

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
Rows: TypeAlias = pd.Series | NDArray[Any] | list[int]  # whether it holds, row by row; or positions from 0
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
        drop: those of them that :func:`cmcgns.check.run.fix` leaves out.
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
class ImageFacts:
    """What opening the stored images showed, of every row of a manifest.

    Attributes:
        facts: (n,) structured array: width, height, lowest and highest value, rows of burned-in text (hint), kinds of
            identifiers in the file's own tags, hashes and thumbnails; zeros where the image was not read.
        problems: position -> why the image cannot be read.
        skipped: positions of images that are not opened: URLs and empty paths.
    """

    facts: NDArray[np.void]
    problems: dict[int, str]
    skipped: list[int] = field(default_factory=list)

    @cached_property
    def read(self) -> NDArray[np.bool_]:
        """(n,) whether the image was read."""
        mask = np.ones(len(self.facts), dtype=bool)
        mask[[*self.problems, *self.skipped]] = False
        return mask


NOT_OPENED = ImageFacts(np.zeros(0, dtype=np.void), {})


@dataclass(frozen=True)
class Loaded:
    """A manifest in memory.

    Attributes:
        file: the parquet file.
        frame: its rows, in the schema's types.
        boxes: as numbers, and the rows where there is no reading them (:func:`cmcgns.check.boxes.box_table`).
        images: of no row where no rule needs them.
    """

    file: Path
    frame: pd.DataFrame = field(repr=False)
    boxes: tuple[pd.DataFrame, list[int]] = field(repr=False)
    images: ImageFacts = field(default=NOT_OPENED, repr=False)

    def finding(
        self, severity: Severity, message: str, rows: Rows, drop: Rows | None = None, where: str = ""
    ) -> Finding:
        """A finding about rows of this manifest; the rule adds its name, or leaves it out if it has no row.

        Args:
            severity: how bad it is.
            message: what is wrong.
            rows: whether it holds, row by row, or positions from 0.
            drop: what `fix` leaves out; by default all rows of an error, and none otherwise.
            where: the file, if one file is at fault; by default the manifest and the rows.
        """
        named = tuple(positions(rows))
        left_out = tuple(positions(drop)) if drop is not None else named if severity == "error" else ()
        return Finding("", severity, where or f"{self.file}, {show_rows(named)}", message, named, left_out, self.file)

    def path(self, row: int, column: str = "image_path") -> str:
        """Where the image (or mask) of a row is."""
        return image_file(self.file.parent, str(self.frame[column].iloc[row]))


def show_rows(rows: Sequence[int]) -> str:
    """Positions from 0 as people read them: "rows 1, 5, 9, and 12 more"."""
    shown = ", ".join(first_of(rows, _SHOWN_ROWS, lambda row: str(row + 1)))
    return f"row{'s' if len(rows) != 1 else ''} {shown}"


def positions(rows: Rows) -> list[int]:
    """Where a mask holds, counted from 0 (missing values do not hold); positions stay what they are."""
    if not pd.api.types.is_bool_dtype(rows):
        return [int(row) for row in rows]
    return np.flatnonzero(pd.Series(rows).fillna(False).to_numpy(dtype=bool)).tolist()


Single = Callable[[Loaded], Iterable[Finding]]
Joint = Callable[[Sequence[Loaded]], Iterable[Finding]]


@dataclass(frozen=True)
class Rule:
    """A named check."""

    name: str
    description: str
    opens_images: bool
    check: Joint

    def findings(self, manifests: Sequence[Loaded]) -> Iterator[Finding]:
        """What the function found, with the rule's name; a finding about no row is none."""
        for finding in self.check(manifests):
            if finding.rows:
                yield replace(finding, rule=self.name)


RULES: dict[str, Rule] = {}


def joint_rule(name: str, description: str, opens_images: bool = False) -> Callable[[Joint], Joint]:
    """Register a function over all manifests together as a rule."""

    def register(check: Joint) -> Joint:
        RULES[name] = Rule(name, description, opens_images, check)
        return check

    return register


def rule(name: str, description: str, opens_images: bool = False) -> Callable[[Single], Single]:
    """Register a function over one manifest as a rule; it is called with each."""

    def register(check: Single) -> Single:
        joint_rule(name, description, opens_images)(lambda manifests: chain.from_iterable(map(check, manifests)))
        return check

    return register
