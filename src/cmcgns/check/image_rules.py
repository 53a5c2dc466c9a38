"""Checks of the stored images themselves."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmcgns.check.burned_in import TEXT_ROWS
from cmcgns.check.finding import Finding, Loaded, each, rule
from cmcgns.check.images import ImageFacts
from cmcgns.check.metadata import dicom_patient_tags, is_dicom
from cmcgns.data.manifest import image_file


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
        if is_dicom(Path(file)):
            problem = "a DICOM file; training reads PNG and JPEG, which `cmcgns prepare` writes"
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
