"""What a reader of a public dataset gives, and what it is told.

A reader is one file: `read(root, options) -> SourceTable`, and a `SOURCE` that says where the data come from.
It reads tables and names image files; it opens no image (that is done once, by `prepare`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from cmcgns.common.errors import UserError

SplitRule = Literal["v1", "legacy"]


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

    frame: pd.DataFrame
    left_out: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def leave_out(self, bad: pd.Series, where: pd.Series, reason: str) -> None:
        """Take rows out of the frame and remember them.

        Args:
            bad: Boolean, aligned with the frame.
            where: names file and row or image of every row.
            reason: in words.
        """
        self.left_out += [{"where": str(place), "reason": reason} for place in where[bad.to_numpy()]]
        self.frame = self.frame[~bad.to_numpy()].reset_index(drop=True)


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
    layout: tuple[str, ...]
    read: Callable[[Path, SourceOptions], SourceTable]


def find(root: Path, *patterns: str) -> Path:
    """The one file or folder below the root that the first matching pattern names.

    Raises:
        UserError: nothing matches; says what was looked for.
    """
    for pattern in patterns:
        found = sorted(root.glob(pattern))
        if found:
            return found[0]
    raise UserError(f"{root}: none of {', '.join(patterns)} is there")


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
