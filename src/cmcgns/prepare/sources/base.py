"""What a reader of a public dataset gives, and what it is told.

A reader is one file with a function `read(root, options) -> SourceTable`; `sources.yaml` says where the data come
from. It reads tables and names image files; it opens no image (that is done once, by `prepare`).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from cmcgns.common.errors import UserError

SplitRule = Literal["v1", "legacy"]
PLACE = "_place"  # column of the readers: file and row, for messages


@dataclass(frozen=True)
class SourceOptions:
    """What the user asked for.

    Attributes:
        split: rule of the splits: `v1` by patient, `legacy` as published programs did (see docs/datasets.md).
        seed: of drawn splits.
        columns: our column name -> the user's (source `table` only).
        rules: rule file for sections of reports: a name that comes with the package, or a path.
        dataset: name of rows that state none (source `table` only); ids start with it.
    """

    split: SplitRule = "v1"
    seed: int = 0
    columns: dict[str, str] = field(default_factory=dict)
    rules: str = "english"
    dataset: str = ""


@dataclass
class SourceTable:
    """Rows as a dataset's own files state them, before any image is opened.

    Attributes:
        frame: columns of the manifest as far as they are known. `source` is the image file relative to the root
            (required); boxes are JSON in pixels of the source image. `mask` (JSON, optional) says how the mask is
            made: `{"rle": ["…"], "width": 1024, "height": 1024}` (SIIM's relative code, column-major) or
            `{"file": "masks/a.png"}`; an empty `rle` list is an empty mask, an empty cell is no mask.
        left_out: rows that are not used: {"where": "file, row 3", "reason": "…"}.
        notes: what a user should know, e.g. that the split is by image.
    """

    frame: pd.DataFrame = field(default_factory=pd.DataFrame)
    left_out: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def leave_out(self, bad: pd.Series, reason: str | pd.Series, where: pd.Series | None = None) -> None:
        """Take rows out of the frame and remember them.

        Args:
            bad: Boolean, row by row as the frame.
            reason: in words; one for all, or one for each row.
            where: names file and row or image of every row; by default the column `PLACE`.
        """
        chosen = bad.to_numpy(dtype=bool)
        if not chosen.any():
            return
        places = (self.frame[PLACE] if where is None else where)[chosen]
        reasons = [reason] * len(places) if isinstance(reason, str) else reason[chosen]
        for place, words in zip(places, reasons, strict=True):
            self.also_left_out([place], words)
        self.frame = self.frame[~chosen].reset_index(drop=True)

    def also_left_out(self, places: Iterable[str], reason: str) -> None:
        """Remember what never was in the frame, such as files that no table names."""
        self.left_out += [{"where": str(place), "reason": str(reason)} for place in places]


@dataclass(frozen=True)
class Source:
    """A public dataset.

    Attributes:
        name: as in `cmcgns prepare NAME`.
        title: official name.
        task: what it serves, e.g. "pretraining".
        licence: licence or terms.
        size: of the download.
        url: of the official page.
        layout: what to unpack where, one line each.
        read: the reader.
    """

    name: str
    title: str
    task: str
    licence: str
    size: str
    url: str
    layout: list[str]
    read: Callable[[Path, SourceOptions], SourceTable]


def find(root: Path, *patterns: str) -> Path:
    """The one file or folder below the root that the first matching pattern names.

    Raises:
        UserError: nothing matches; says what was looked for.
    """
    found = find_optional(root, *patterns)
    if found is None:
        raise UserError(f"{root}: none of {', '.join(patterns)} is there")
    return found


def find_optional(root: Path, *patterns: str) -> Path | None:
    """The first file or folder below the root that the first matching pattern names; None without one."""
    return next((path for pattern in patterns for path in sorted(root.glob(pattern))), None)


def draw_splits(
    patients: pd.Series, seed: int, fractions: dict[str, float], strata: pd.Series | None = None
) -> pd.Series:
    """A split for every row such that a patient is in one split only, drawn by the seed.

    The draw depends on the names of the patients alone, not on the order of the rows.

    Args:
        patients: (n,) patient ids.
        seed: of the draw.
        fractions: share of the patients by split; they sum to 1.
        strata: (n,) values whose shares the splits keep, the largest of each patient counts (e.g. the label).

    Returns:
        (n,) names of splits.
    """
    rows = pd.DataFrame({"patient": patients, "stratum": 0 if strata is None else strata})
    largest = rows.groupby("patient")["stratum"].max().sort_index()
    generator = np.random.default_rng(seed)
    chosen = pd.Series("", index=largest.index, dtype="str")
    for stratum in sorted(largest.unique()):
        members = largest.index[largest == stratum].to_numpy()
        members = members[generator.permutation(len(members))]
        ends = np.round(np.cumsum(list(fractions.values())) * len(members)).astype(int)
        for name, start, end in zip(fractions, [0, *ends[:-1]], ends, strict=True):
            chosen[members[start:end]] = name
    return patients.map(chosen)


def without_legacy(table: SourceTable, options: SourceOptions, name: str) -> None:
    """Say that there is one rule of splits only."""
    table.frame["split_rule"] = "v1"
    if options.split == "legacy":
        table.notes.append(f"no legacy split is defined for {name}; v1 is used")
