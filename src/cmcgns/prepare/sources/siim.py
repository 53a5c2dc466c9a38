"""SIIM-ACR Pneumothorax Segmentation: DICOM in nested folders, masks as relative run-length code."""

import json
from pathlib import Path

import pandas as pd

from cmcgns.common.errors import UserError
from cmcgns.data.images.masks import NO_MASK, SIIM_SIDE, parse_rle
from cmcgns.data.tables import read_table
from cmcgns.prepare.sources.base import PLACE, OtherLayout, SourceOptions, SourceTable, existing_files, find
from cmcgns.prepare.sources.cells import draw_splits, number_rows, published_splits, with_image

FRACTIONS = {"train": 0.70, "val": 0.15, "test": 0.15}
# The later table has the images of stage 1's training and test set, so it goes first.
TABLES = tuple(
    f"{folder}{name}{end}"
    for folder in ("", "*/")
    for name in ("stage_2_train.csv", "train-rle.csv")
    for end in ("", ".gz")
)


def read(root: Path, options: SourceOptions) -> SourceTable:
    """One row per image that stands in the table and lies on disk; all rows of an image are joined.

    Splits are 70/15/15 by image: v1 is stratified by the label and drawn by the seed. The published program split
    the *rows* of the table, so that an image with several masks could be in training and in test; `legacy` repeats
    its draw of the rows, but every image goes where its first row went, with all its masks.

    Raises:
        UserError: no table, one without the columns, or no DICOM file.
    """
    file = find(root, *TABLES)
    rows = read_table(file, ("ImageId", "EncodedPixels"))
    table = join_rows(rows, file.name, options)
    _add_files(table, root, set(rows["ImageId"].str.strip()), file.name)
    table.notes.append(
        f"image-level split: {file.name} names no patients. The images come from NIH ChestX-ray14, where a patient "
        "owns several"
    )
    return table


def join_rows(rows: pd.DataFrame, name: str, options: SourceOptions) -> SourceTable:
    """The table's rows as one row per image, sorted by id, with label, mask and split, without `source`.

    Args:
        rows: columns ImageId, EncodedPixels; text.
        name: of the file, for messages.
        options: rule and seed of the split.
    """
    table = SourceTable()
    rows = number_rows(rows, name, table)
    images, codes = rows["ImageId"].str.strip(), rows["EncodedPixels"].str.strip()
    codes = codes.mask(codes == NO_MASK, "")
    published = published_splits(len(rows), 0.3)
    table.frame = pd.DataFrame({PLACE: rows[PLACE], "image": images, "code": codes, "published": published})
    faults = _faults(images, codes)
    table.leave_out(faults != "", faults)
    groups = table.frame.groupby("image", sort=True)
    masks = groups["code"].agg(lambda cells: [cell for cell in cells if cell])
    ids = "siim:" + pd.Series(masks.index, dtype="str")
    positive = masks.map(len).gt(0).astype(int).reset_index(drop=True)
    if options.split == "legacy":
        split = groups["published"].first().reset_index(drop=True)
        table.notes.append(
            "legacy split: the published draw of rows (seed 0), but an image is only where its first row went; "
            f"{int(groups.size().gt(1).sum())} images have several rows"
        )
    else:
        split = draw_splits(ids, options.seed, FRACTIONS, positive)
    table.frame = pd.DataFrame(
        {
            "study_id": ids,
            "patient_id": ids,
            "dataset": "siim",
            "view": "FRONTAL",
            "split": split,
            "label_Pneumothorax": positive,
            "mask": [json.dumps({"rle": found, "width": SIIM_SIDE, "height": SIIM_SIDE}) for found in masks],
        }
    )
    return table


def _faults(images: pd.Series, codes: pd.Series) -> pd.Series:
    """What is wrong with each row, or nothing."""
    faults = codes.map(_fault_of_code)
    negative = (codes == "").groupby(images).transform("mean").between(0, 1, inclusive="neither")
    faults = faults.mask(negative & (faults == ""), "the image has a row with a mask and one without")
    return with_image(faults.mask(images == "", "empty ImageId"), images)


def _fault_of_code(code: str) -> str:
    try:
        parse_rle(code, SIIM_SIDE, SIIM_SIDE, "EncodedPixels")
    except UserError as error:
        return str(error)
    return ""


def _add_files(table: SourceTable, root: Path, named: set[str], name: str) -> None:
    """Add `source`; leave out images without a file, and name the files that no row uses."""
    found = existing_files(root, table=table)
    files = pd.Series(sorted(file for file in found if file.lower().endswith(".dcm")), dtype="str")
    if files.empty:
        raise OtherLayout(f"{root}: no .dcm file in it or its folders; unpack the images of the challenge there")
    images = files.str.rpartition("/")[2].str.slice(stop=-len(".dcm"))
    second, unnamed = images.duplicated(), ~images.isin(named)
    sources = pd.Series(files[~second].to_numpy(), index=images[~second])
    ids = table.frame["study_id"].str.removeprefix("siim:")
    table.frame["source"] = ids.map(sources)
    table.leave_out(table.frame["source"].isna(), "no DICOM file of this name", f"{name}, image " + ids)
    reasons = ((unnamed, f"{name} does not name it"), (second & ~unnamed, "a second file of the same image"))
    for bad, reason in reasons:
        table.also_left_out(files[bad], reason)
