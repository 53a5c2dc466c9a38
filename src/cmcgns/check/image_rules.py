"""Checks of the stored images themselves, and of the masks that manifests name."""

import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmcgns.check.image_facts import TEXT_ROWS, ImageFacts, read_grey
from cmcgns.check.metadata import dicom_patient_tags, is_dicom
from cmcgns.check.rule import Finding, Loaded, each, rule
from cmcgns.common.errors import UserError
from cmcgns.data.manifest import image_file, label_columns


def _facts(loaded: Loaded) -> ImageFacts:
    assert loaded.images is not None, "rules about images run only where they were opened"
    return loaded.images


def _file(loaded: Loaded, row: int) -> str:
    return image_file(loaded.file.parent, str(loaded.frame["image_path"].iloc[row]))


@rule("unreadable-image", "an image is missing, truncated, oversized or no image", opens_images=True)
@each
def unreadable_image(loaded: Loaded) -> Iterator[Finding]:
    """One finding per file."""
    for row, problem in _facts(loaded).problems.items():
        file = _file(loaded, row)
        yield loaded.finding("error", f"unreadable image: {problem}", [row], where=file)


@rule("images-not-opened", "images at URLs, which are not checked", opens_images=True)
@each
def images_not_opened(loaded: Loaded) -> Iterator[Finding]:
    """So that nobody takes silence for a good result."""
    remote = [row for row in _facts(loaded).skipped if loaded.frame["image_path"].iloc[row]]
    if remote:
        yield loaded.finding("note", "images at URLs were not opened", remote)


@rule("constant-image", "all pixels of an image are equal", opens_images=True)
@each
def constant_image(loaded: Loaded) -> Iterator[Finding]:
    """Failed exports; a model would learn that black means what the report says."""
    facts = _facts(loaded)
    for row in np.flatnonzero(facts.read & ~(facts.facts["high"] > facts.facts["low"])).tolist():
        message = f"all pixels have the value {facts.facts['low'][row]:g}"
        yield loaded.finding("error", message, [row], where=_file(loaded, row))


@rule("image-size", "an image has another size than the manifest says", opens_images=True)
@each
def image_size(loaded: Loaded) -> Iterator[Finding]:
    """Boxes would lie elsewhere."""
    facts = _facts(loaded)
    wrong = np.zeros(len(facts.facts), dtype=bool)
    stated: dict[str, NDArray[np.float64]] = {}
    for side in ("width", "height"):
        stated[side] = loaded.frame[side].to_numpy(dtype=np.float64, na_value=np.nan)
        wrong |= ~np.isnan(stated[side]) & (stated[side] != facts.facts[side])
    for row in np.flatnonzero(facts.read & wrong).tolist():
        found = f"{facts.facts['width'][row]}×{facts.facts['height'][row]}"
        message = f"is {found}, the manifest says {stated['width'][row]:g}×{stated['height'][row]:g}"
        yield loaded.finding("error", message, [row], where=_file(loaded, row))


@rule("burned-in-text", "an image seems to have text burned in (a hint; may be a grid or a wire)", opens_images=True)
@each
def burned_in_text(loaded: Loaded) -> Iterator[Finding]:
    """Names and dates, but also "PORTABLE", which a model takes for a finding."""
    facts = _facts(loaded)
    rows = np.flatnonzero(facts.read & (facts.facts["text_rows"] >= TEXT_ROWS)).tolist()
    if rows:
        yield loaded.finding("note", "the image seems to have text near its border; look at a few", rows)


@rule("identifiers-in-image-file", "tags or comments of an image file hold a person's data", opens_images=True)
@each
def identifiers_in_image_file(loaded: Loaded) -> Iterator[Finding]:
    """EXIF, PNG text and JPEG comments by their look, DICOM patient tags if they are filled."""
    facts = _facts(loaded)
    for row in np.flatnonzero(facts.read & (facts.facts["metadata"] != "")).tolist():
        message = f"the file's tags or comments seem to hold a {facts.facts['metadata'][row]}"
        yield loaded.finding("warning", message, [row], where=_file(loaded, row))
    for row in facts.problems:
        file = Path(_file(loaded, row))
        if is_dicom(file) and (tags := dicom_patient_tags(file)):
            yield loaded.finding("warning", f"filled DICOM tags: {', '.join(tags)}", [row], where=str(file))


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
            grey, _ = read_grey(Path(files[row]))
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
