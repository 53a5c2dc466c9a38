"""Paths in tables, understood alike by every verb: relative or absolute, of this system or another, or URLs."""

import os
import re
from pathlib import Path

import pandas as pd

from cmcgns.common.errors import UserError
from cmcgns.common.remote import is_url
from cmcgns.data.manifest import image_file

_FOREIGN = r"^[A-Za-z]:[\\/]|^\\\\"  # C:\images, \\server\images
_UNPLAIN = re.compile(r"^/|//|\\|(?:^|/)\.{1,2}(?:/|$)")


def plain_path(path: str) -> str:
    """A path with slashes and without detours; URLs, and nothing, as they are."""
    return path if not path or is_url(path) else os.path.normpath(path.replace("\\", "/"))


def absolute_paths(cells: pd.Series, folder: Path) -> pd.Series:
    """Where the files of a column are.

    Args:
        cells: (n,) paths relative to the folder, absolute ones, or URLs; backslashes count as slashes.
        folder: where relative ones start.

    Returns:
        (n,) absolute paths without detours, and URLs.
    """
    root = folder.resolve()
    if not cells.str.contains(_UNPLAIN.pattern).any():  # no loop where all are plain
        return f"{root}/" + cells
    return cells.map({cell: plain_path(image_file(root, plain_path(cell))) for cell in cells.unique()}).astype("str")


def is_of_another_system(cells: pd.Series) -> pd.Series:
    """(n,) Boolean: an absolute path of a Windows machine, which is nowhere here."""
    return cells.str.contains(_FOREIGN) if os.sep == "/" else pd.Series(False, index=cells.index)


def images_folder(stated: Path | str | None, table: Path, option: str) -> Path:
    """Where relative paths of a table start: the folder that the user named, else the table's own.

    Raises:
        UserError: no such folder.
    """
    if not stated:
        return table.parent
    folder = Path(stated).expanduser()
    if not folder.is_dir():
        raise UserError(f"{option} {folder}: no such folder")
    return folder
