"""What a reader of a public dataset gives, what it is told, and which files are there.

A reader is one file with a function `read(root, options) -> SourceTable`; `sources.yaml` says where the data come
from. It reads tables and names image files; it opens no image (that is done once, by `prepare`).
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import pandas as pd

from cmcgns.common.errors import UserError, shortened
from cmcgns.data.delimited import TextFormat

SplitRule = Literal["v1", "legacy"]
PLACE = "_place"  # column of the readers: file and row, for messages
_LEAVES_ROOT = (
    "symbolic link that leaves the root; put the files there, or name a folder above (--root, --images of a table)"
)


@dataclass(frozen=True)
class SourceOptions:
    """What the user asked for.

    Attributes:
        split: rule of the splits: `v1` by patient, `legacy` as published programs did (see docs/datasets.md).
        seed: of drawn splits.
        columns: our column name -> the user's (source `table` only).
        rules: rule file for sections of reports: a name that comes with the package, or a path.
        dataset: name of rows that state none (source `table` only); ids start with it.
        images: folder where paths of the table start (source `table` only); None: the table's own.
        form: separator and encoding (source `table` only).
    """

    split: SplitRule = "v1"
    seed: int = 0
    columns: dict[str, str] = field(default_factory=dict)
    rules: str = "english"
    dataset: str = ""
    images: Path | None = None
    form: TextFormat = field(default_factory=TextFormat)


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
        words = shortened(reason, 500)
        self.left_out += [{"where": shortened(place, 500), "reason": words} for place in places]

    def match_files(self, files: set[str], named: Iterable[str], table: str) -> None:
        """Leave out the rows whose `source` is not among the files, and remember the files that no row names.

        Args:
            files: images that are there.
            named: images of all rows, those left out before among them.
            table: the file of the rows.
        """
        self.leave_out(~self.frame["source"].isin(files), "no such file", self.frame["source"])
        self.also_left_out(sorted(files - set(named)), f"{table} does not name it")

    def unused(self, images: Iterable[str]) -> None:
        """Remember images that no row names; to be called while rows that other reasons leave out are still there."""
        self.also_left_out(sorted(set(images) - set(self.frame["source"])), "no readable row names it")


Reader: TypeAlias = Callable[[Path, SourceOptions], SourceTable]


@dataclass(frozen=True)
class Source:
    """A public dataset.

    Attributes:
        name: as in `cmcgns prepare NAME`.
        title: official name.
        licence: licence or terms.
        url: of the official page.
        uses: options that the reader heeds, by their names in `SourceOptions`; `seed-v1` is the seed under v1 only.
        layout: what to unpack where, one line each; a message about another layout ends with it.
        read: the reader.
    """

    name: str
    title: str
    licence: str
    url: str
    uses: list[str]
    layout: list[str]
    read: Reader


class OtherLayout(UserError):
    """A folder in which the dataset's own files are not where they are published."""


def find(root: Path, *patterns: str) -> Path:
    """The one file or folder below the root that the first matching pattern names.

    Raises:
        OtherLayout: nothing matches; says what was looked for.
    """
    found = find_optional(root, *patterns)
    if found is None:
        raise OtherLayout(f"{root}: none of {', '.join(patterns)} is there")
    return found


def find_optional(root: Path, *patterns: str) -> Path | None:
    """The first file or folder below the root that the first matching pattern names; None without one."""
    return next((path for pattern in patterns for path in sorted(root.glob(pattern))), None)


def existing_files(root: Path, folders: Iterable[str] = ("",), table: SourceTable | None = None) -> set[str]:
    """Files below folders of the root, as paths relative to the root with forward slashes.

    Symbolic links are followed as long as they stay below the root; others, which would let a table reach any file of
    the machine, are not.

    Args:
        root: the dataset's folder.
        folders: relative to the root; "" is the root itself, a missing one is empty.
        table: remembers links that leave the root, and folders that cannot be listed.
    """
    top = os.path.realpath(root)
    table = table or SourceTable()
    files: set[str] = set()
    pending: list[tuple[str, frozenset[str]]] = []  # folder, and the linked folders above it
    for folder in dict.fromkeys(folders):
        if Path(os.path.realpath(root / folder)).is_relative_to(top):
            pending.append((folder, frozenset()))
        else:
            table.also_left_out([folder], _LEAVES_ROOT)
    while pending:
        folder, followed = pending.pop()
        for entry in _entries(root, folder, table):
            name = f"{folder}/{entry.name}" if folder else entry.name
            target = os.path.realpath(entry.path) if entry.is_symlink() else ""
            if not is_text(name):
                table.also_left_out([ascii(name)[1:-1]], "its name is no UTF-8: rename it")
            elif target and not Path(target).is_relative_to(top):
                table.also_left_out([name], _LEAVES_ROOT)
            elif entry.is_dir():
                if target not in followed:  # else a circle of links
                    pending.append((name, followed | {target} if target else followed))
            elif entry.is_file():
                files.add(name)
    return files


def is_text(name: str) -> bool:
    """Whether a file's name can be written down; one in another encoding than the system's cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def by_name(files: Iterable[str], suffixes: tuple[str, ...]) -> dict[str, str]:
    """File name -> path, for names that are unique within a dataset; of several paths the shallowest wins.

    Args:
        files: relative paths.
        suffixes: of the files that count, lower case.
    """
    named = (path for path in files if path.lower().endswith(suffixes))
    chosen = sorted(named, key=lambda path: (path.count("/"), path), reverse=True)
    return {path.rpartition("/")[2]: path for path in chosen}


def _entries(root: Path, folder: str, table: SourceTable) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(root / folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        table.also_left_out([folder], f"folder cannot be listed ({error.strerror})")
        return []
