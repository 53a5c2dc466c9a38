"""Rules about the stored images and masks themselves, and about pictures that are near duplicates."""

import warnings
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cmcgns.check.image_facts import NARROW, TEXT_ROWS
from cmcgns.check.rule import Finding, Loaded, joint_rule, rule
from cmcgns.check.tables import across_splits, by_preference, group_findings, places, stack
from cmcgns.check.text import dicom_patient_tags
from cmcgns.common.errors import UserError, first_of
from cmcgns.common.processes import in_threads
from cmcgns.data.images.masks import read_mask
from cmcgns.data.images.near_duplicates import CORRELATION, best_correlation, connected, near_duplicates
from cmcgns.data.manifest import REPORT_COLUMNS, label_columns


@rule("unreadable-image", "an image is missing, truncated, oversized or no image", opens_images=True)
def unreadable_image(loaded: Loaded) -> Iterator[Finding]:
    """One finding per file."""
    for row, problem in loaded.images.problems.items():
        yield loaded.finding("error", f"unreadable image: {problem}", [row], where=loaded.path(row))


@rule("images-not-opened", "images at URLs, which are not checked", opens_images=True)
def images_not_opened(loaded: Loaded) -> Iterator[Finding]:
    """So that nobody takes silence for a good result."""
    remote = [row for row in loaded.images.skipped if loaded.frame["image_path"].iloc[row]]
    yield loaded.finding("note", "images at URLs were not opened", remote)


@rule("constant-image", "all pixels of an image are equal", opens_images=True)
def constant_image(loaded: Loaded) -> Iterator[Finding]:
    """Failed exports; a model would learn that black means what the report says."""
    facts = loaded.images.facts
    for row in np.flatnonzero(loaded.images.read & ~(facts["high"] > facts["low"])).tolist():
        yield loaded.finding("error", "all pixels have the same value", [row], where=loaded.path(row))


@rule("narrow-range", "nearly all pixels of an image lie in a tenth of the gray levels or less", opens_images=True)
def narrow_range(loaded: Loaded) -> Iterator[Finding]:
    """A wrong window or lookup table, 12 bits kept as 16, or one bright dot that takes the range for itself."""
    facts = loaded.images.facts
    narrow = (facts["high"] > facts["low"]) & (facts["spread"] < NARROW)
    for row in np.flatnonzero(loaded.images.read & narrow).tolist():
        message = (
            f"98 % of the pixels lie in {facts['spread'][row]:.1%} of the gray levels: a wrong window or lookup "
            "table in the source, or a single bright dot"
        )
        yield loaded.finding("warning", message, [row], where=loaded.path(row))


@rule("image-size", "an image has another size than the manifest says", opens_images=True)
def stated_size(loaded: Loaded) -> Iterator[Finding]:
    """Boxes would lie elsewhere."""
    stated = loaded.frame[["width", "height"]].to_numpy(dtype=np.float64, na_value=np.nan)
    sizes = np.stack([loaded.images.facts["width"], loaded.images.facts["height"]], axis=1)
    wrong = (~np.isnan(stated) & (stated != sizes)).any(axis=1)
    for row in np.flatnonzero(loaded.images.read & wrong).tolist():
        (width, height), (stated_width, stated_height) = sizes[row], stated[row]
        message = f"is {width}×{height}, the manifest says {stated_width:g}×{stated_height:g}"
        yield loaded.finding("error", message, [row], where=loaded.path(row))


@rule("burned-in-text", "an image seems to have text burned in (a hint; may be a grid or a wire)", opens_images=True)
def burned_in_text(loaded: Loaded) -> Iterator[Finding]:
    """Names and dates, but also "PORTABLE", which a model takes for a finding."""
    hits = loaded.images.read & (loaded.images.facts["text_rows"] >= TEXT_ROWS)
    yield loaded.finding("note", "the image seems to have text near its border; look at a few", hits)


@rule("identifiers-in-image-file", "tags or comments of an image file hold a person's data", opens_images=True)
def identifiers_in_image_file(loaded: Loaded) -> Iterator[Finding]:
    """EXIF, PNG text and JPEG comments by their look, DICOM patient tags if they are filled."""
    metadata = loaded.images.facts["metadata"]
    for row in np.flatnonzero(loaded.images.read & (metadata != "")).tolist():
        message = f"the file's tags or comments seem to hold a {metadata[row]}"
        yield loaded.finding("warning", message, [row], where=loaded.path(row))
    for row in loaded.images.problems:
        file = loaded.path(row)
        if tags := dicom_patient_tags(Path(file)):
            yield loaded.finding("warning", f"filled DICOM tags: {', '.join(tags)}", [row], where=file)


@rule("mask", "a mask is missing, unreadable, of another size than its image, or empty", opens_images=True)
def mask(loaded: Loaded) -> Iterator[Finding]:
    """An empty mask is right where the labels say that there is nothing."""
    paths = loaded.frame["mask_path"]
    rows = np.flatnonzero(((paths != "") & ~paths.str.contains("://", regex=False)).to_numpy(dtype=bool)).tolist()
    with warnings.catch_warnings(action="ignore"):  # left before anything is yielded: the filter is everybody's
        found = in_threads(lambda row: list(_judge_mask(loaded, row)), rows)
    yield from chain.from_iterable(found)


def _judge_mask(loaded: Loaded, row: int) -> Iterator[Finding]:
    file = loaded.path(row, "mask_path")
    try:
        inside = read_mask(Path(file))
    except UserError as error:
        yield loaded.finding("error", f"unreadable mask: {str(error).removeprefix(f'{file}: ')}", [row], where=file)
        return
    height, width = inside.shape
    stated = loaded.frame[["width", "height"]].iloc[row].dropna().tolist()
    expected = loaded.images.facts[["width", "height"]][row].tolist() if loaded.images.read[row] else tuple(stated)
    if len(expected) == 2 and expected != (width, height):
        message = f"the mask is {width}×{height}, its image {expected[0]}×{expected[1]}"
        yield loaded.finding("error", message, [row], where=file)
    labels = loaded.frame.iloc[row][label_columns(loaded.frame)].dropna()
    negative = len(labels) > 0 and (labels == 0).all()
    if not inside.any() and not negative:
        message = "the mask is empty, and no label says that there is nothing"
        yield loaded.finding("warning", message, [row], where=file)


@joint_rule(
    "near-duplicate", "the same picture twice; an error if in more than one of train, val and test", opens_images=True
)
def near_duplicate(manifests: Sequence[Loaded]) -> Iterator[Finding]:
    """Pictures that differ in compression, size, brightness or a narrow crop.

    Where two studies have the same report, also in a mirror, a turn or a wider crop.

    Across splits `fix` keeps test, else val; within a split all stay: which copy is better is for the user to say.
    """
    table = _near_groups(manifests)
    across = across_splits(table)
    within = table[~table["key"].isin(across["key"])].assign(drop=False)

    def describe(rows: pd.DataFrame) -> str:
        likeness = f"correlation {rows['correlation'].min():.3f}"
        where = places(rows, manifests)
        return f"the same picture ({likeness}) is in {where}: {', '.join(first_of(rows['name'].tolist(), 3))}"

    yield from group_findings(manifests, across, "error", describe, "pictures in several splits")
    yield from group_findings(manifests, within, "warning", describe, "pictures that stand twice")


def _near_groups(manifests: Sequence[Loaded]) -> pd.DataFrame:
    """Rows whose picture has a near duplicate, the members of a group with one `key`.

    Files that are the same byte by byte are left to the rules about sha256: one of each stands for the others.
    """
    table = stack(manifests, "image_path")
    facts = np.concatenate([loaded.images.facts for loaded in manifests])
    comparable = np.concatenate([loaded.images.read for loaded in manifests]) & (facts["high"] > facts["low"])
    table["sha256"] = pd.concat([loaded.frame["sha256"] for loaded in manifests], ignore_index=True)
    table = by_preference(table[comparable[table.index]])
    table = table[(table["sha256"] == "") | ~table.duplicated("sha256")].sort_index()
    pairs, correlations = near_duplicates(facts["hashes"][table.index], facts["thumbnails"][table.index])
    proposed = _same_report(manifests, table)
    small = facts["thumbnails"][:, 0][table.index]
    alike = best_correlation(small[proposed[:, 0]], small[proposed[:, 1]])
    pairs = np.concatenate([pairs, proposed[alike >= CORRELATION]])
    correlations = np.concatenate([correlations, alike[alike >= CORRELATION]])
    lowest = np.ones(len(table))
    for end in (0, 1):
        np.minimum.at(lowest, pairs[:, end], correlations)
    table = table.assign(key=connected(len(table), pairs), correlation=lowest)
    return table[np.isin(np.arange(len(table)), pairs)]


_TEMPLATE = 8  # images; a report that stands beside more is a template, and proposes nothing


def _same_report(manifests: Sequence[Loaded], table: pd.DataFrame) -> NDArray[np.int64]:
    """(p, 2) positions in a table of images whose studies differ and whose reports are the same."""
    columns = [*REPORT_COLUMNS, "study_id"]
    rows = pd.concat([loaded.frame[columns] for loaded in manifests], ignore_index=True).loc[table.index]
    rows = rows.assign(place=np.arange(len(rows)))[(rows[list(REPORT_COLUMNS)] != "").any(axis=1)]
    rows = rows[rows.groupby(list(REPORT_COLUMNS))["place"].transform("size") <= _TEMPLATE]
    both = rows.merge(rows, on=list(REPORT_COLUMNS), suffixes=("", "_other"))
    both = both[(both["place"] < both["place_other"]) & (both["study_id"] != both["study_id_other"])]
    pairs: NDArray[np.int64] = both[["place", "place_other"]].to_numpy(dtype=np.int64)
    return pairs
