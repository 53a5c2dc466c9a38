"""Checks of the masks that manifests name."""

import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from cmcgns.check.finding import Finding, Loaded, each, rule
from cmcgns.check.images import open_grey
from cmcgns.data.manifest import image_file, label_columns
from cmcgns.errors import UserError

_Measured = tuple[int, str, tuple[int, int], bool]  # row, problem, (height, width), whether anything is inside


@rule("mask", "a mask is missing, unreadable, of another size than its image, or empty", opens_images=True)
@each
def mask(loaded: Loaded) -> Iterator[Finding]:
    """An empty mask is right where the labels say that there is nothing."""
    paths = loaded.frame["mask_path"]
    rows = np.flatnonzero(((paths != "") & ~paths.str.contains("://", regex=False)).to_numpy(dtype=bool)).tolist()
    files = {row: image_file(loaded.file.parent, str(paths.iloc[row])) for row in rows}

    def measure(row: int) -> _Measured:
        try:
            _, grey = open_grey(Path(files[row]))
        except UserError as error:
            return row, str(error), (0, 0), False
        return row, "", (grey.shape[0], grey.shape[1]), bool(grey.any())

    with warnings.catch_warnings(action="ignore"), ThreadPoolExecutor(os.cpu_count()) as pool:
        for measured in pool.map(measure, rows):
            yield from _judge(loaded, measured, files[measured[0]])


def _judge(loaded: Loaded, measured: _Measured, file: str) -> Iterator[Finding]:
    row, problem, (height, width), filled = measured
    if problem:
        yield loaded.finding("error", f"unreadable mask: {problem}", [row], where=file)
        return
    expected = _image_size(loaded, row)
    if expected and expected != (height, width):
        message = f"the mask is {width}×{height}, its image {expected[1]}×{expected[0]}"
        yield loaded.finding("error", message, [row], where=file)
    if not filled and not _negative(loaded, row):
        message = "the mask is empty, and no label says that there is nothing"
        yield loaded.finding("warning", message, [row], where=file)


def _image_size(loaded: Loaded, row: int) -> tuple[int, int] | None:
    """(height, width) of the image as it was read, else as the manifest says."""
    if loaded.images is not None and loaded.images.read[row]:
        return int(loaded.images.facts["height"][row]), int(loaded.images.facts["width"][row])
    stated = loaded.frame[["height", "width"]].iloc[row]
    return None if stated.isna().any() else (int(stated["height"]), int(stated["width"]))


def _negative(loaded: Loaded, row: int) -> bool:
    labels = loaded.frame[label_columns(loaded.frame)].iloc[row].dropna()
    return bool(len(labels)) and bool((labels == 0).all())
