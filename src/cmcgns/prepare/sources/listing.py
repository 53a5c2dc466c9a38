"""Which files are below a dataset's folder: one walk instead of a question per row."""

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import pandas as pd


def existing_files(
    root: Path, folders: Iterable[str] = ("",), left_out: list[dict[str, str]] | None = None
) -> set[str]:
    """Files below folders of the root, as paths relative to the root with forward slashes.

    Symbolic links are followed as long as they stay below the root; others, which would let a table reach any file of
    the machine, are not.

    Args:
        root: the dataset's folder.
        folders: relative to the root; "" is the root itself, a missing one is empty.
        left_out: links that leave the root and folders that cannot be listed are added here.
    """
    top = os.path.realpath(root)
    skipped = left_out if left_out is not None else []
    files: set[str] = set()
    pending: list[tuple[str, frozenset[str]]] = []  # folder, and the linked folders above it
    for folder in dict.fromkeys(folders):
        if is_inside(os.path.realpath(root / folder), top):
            pending.append((folder, frozenset()))
        else:
            skipped.append(_leaves_root(folder))
    while pending:
        folder, followed = pending.pop()
        for entry in _entries(root, folder, skipped):
            name = f"{folder}/{entry.name}" if folder else entry.name
            target = os.path.realpath(entry.path) if entry.is_symlink() else ""
            if target and not is_inside(target, top):
                skipped.append(_leaves_root(name))
            elif entry.is_dir():
                if target not in followed:  # else a circle of links
                    pending.append((name, followed | {target} if target else followed))
            elif entry.is_file():
                files.add(name)
    return files


def is_inside(path: str, folder: str) -> bool:
    """Whether a resolved path is a resolved folder or below it."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def by_name(files: Iterable[str], suffixes: tuple[str, ...]) -> dict[str, str]:
    """File name -> path, for names that are unique within a dataset; of several paths the shallowest wins.

    Args:
        files: relative paths.
        suffixes: of the files that count, lower case.
    """
    named = (path for path in files if path.lower().endswith(suffixes))
    chosen = sorted(named, key=lambda path: (path.count("/"), path), reverse=True)
    return {path.rpartition("/")[2]: path for path in chosen}


def relative_paths(cells: pd.Series, root: Path) -> tuple[pd.Series, pd.Series]:
    """Paths of a table, relative to the root and without detours; the files are not asked for.

    Args:
        cells: (n,) paths relative to the root, or absolute ones below it; backslashes count as slashes.
        root: the dataset's folder.

    Returns:
        (n,) relative paths, and (n,) Boolean: the path leaves the root.
    """
    top = PurePosixPath(os.path.realpath(root)).as_posix() + "/"
    here = PurePosixPath(os.path.abspath(root)).as_posix() + "/"  # noqa: PTH100 - links must stay as they are

    def clean(path: str) -> str:
        path = path.replace("\\", "/").removeprefix(here).removeprefix(top)
        return os.path.normpath(path).replace("\\", "/") if path else ""

    paths = cells.map({cell: clean(cell) for cell in cells.unique()}).astype("str")
    return paths, paths.str.startswith("/") | (paths == "..") | paths.str.startswith("../")


def _entries(root: Path, folder: str, skipped: list[dict[str, str]]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(root / folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        skipped.append({"where": folder, "reason": f"folder cannot be listed ({error.strerror})"})
        return []


def _leaves_root(name: str) -> dict[str, str]:
    return {"where": name, "reason": "symbolic link that leaves the root; put the files there or choose a root above"}
