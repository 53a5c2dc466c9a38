"""Paths in tables, understood alike by every verb: relative or absolute, of this system or another, or URLs."""

import os
import re
from pathlib import Path

import pandas as pd

from cmcgns.common.errors import UserError
from cmcgns.common.files import expanded
from cmcgns.common.remote import is_url
from cmcgns.data.tables import map_once

_FOREIGN = r"^[A-Za-z]:[\\/]|^\\\\"  # C:\images, \\server\images
_UNPLAIN = re.compile(r"^/|//|\\|(?:^|/)\.{1,2}(?:/|$)")


def plain_path(path: str) -> str:
    """A path with slashes and without detours; URLs, and nothing, as they are."""
    return path if not path or is_url(path) else os.path.normpath(path.replace("\\", "/"))


def image_file(folder: Path, image_path: str) -> str:
    """Where an image is: a URL as it stands, else a path below the manifest's folder."""
    return image_path if is_url(image_path) else str(folder / image_path)


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
    return map_once(cells, lambda cell: plain_path(image_file(root, plain_path(cell)))).astype("str")


def relative_paths(cells: pd.Series, root: Path) -> tuple[pd.Series, pd.Series]:
    """Paths of a table, relative to the root and without detours; the files are not asked for.

    Args:
        cells: (n,) paths relative to the root, or absolute ones below it; backslashes count as slashes.
        root: the dataset's folder.

    Returns:
        (n,) relative paths, and (n,) Boolean: the path leaves the root.
    """
    top = os.path.realpath(root) + "/"
    here = os.path.abspath(root) + "/"  # noqa: PTH100 - links must stay as they are

    def clean(path: str) -> str:
        if is_url(path):
            return path
        return plain_path(path.replace("\\", "/").removeprefix(here).removeprefix(top))

    paths = map_once(cells, clean).astype("str")
    return paths, paths.str.startswith("/") | (paths == "..") | paths.str.startswith("../")


def is_of_another_system(cells: pd.Series) -> pd.Series:
    """(n,) Boolean: an absolute path of a Windows machine, which is nowhere here."""
    return cells.str.contains(_FOREIGN)


def images_folder(stated: Path | str | None, table: Path, option: str) -> Path:
    """Where relative paths of a table start: the folder that the user named, else the table's own.

    Raises:
        UserError: no such folder.
    """
    if not stated:
        return table.parent
    folder = expanded(stated)
    if not folder.is_dir():
        raise UserError(f"{option} {folder}: no such folder")
    return folder
