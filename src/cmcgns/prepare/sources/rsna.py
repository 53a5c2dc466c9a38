"""RSNA Pneumonia Detection Challenge, stage 2: labels and boxes, and the NIH patients behind the images."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from cmcgns.common.errors import UserError, shortened
from cmcgns.data.boxes import BOX_FIELDS
from cmcgns.data.tables import read_table
from cmcgns.data.text_files import read_lines
from cmcgns.prepare.sources.base import PLACE, SourceOptions, SourceTable, existing_files, find, find_optional
from cmcgns.prepare.sources.cells import (
    boxes_by_image,
    draw_splits,
    look_up,
    number_rows,
    published_splits,
    with_image,
)

MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"
_PATTERNS = (MAPPING, "*mapping*.json", "*mapping*.csv", "*mapping*.csv.gz")
FRACTIONS = {"train": 0.70, "val": 0.15, "test": 0.15}
LABELS, CLASSES, IMAGES = "stage_2_train_labels.csv", "stage_2_detailed_class_info.csv", "stage_2_train_images"


def read_mapping(file: Path) -> pd.Series:
    """Challenge image -> NIH image, e.g. "00001280_003.png"; images that a file maps twice are not in it.

    Args:
        file: RSNA's json (a list of records with `subset_img_id` and `img_id`), or a csv file with the columns
            `rsna_patientId` and `nih_index`.

    Raises:
        UserError: unreadable, or of another structure; names the missing key.
    """
    if ".csv" in file.name:
        pairs = read_table(file, ("rsna_patientId", "nih_index"))[["rsna_patientId", "nih_index"]]
        pairs = pairs.set_axis(["subset_img_id", "img_id"], axis=1)
    else:
        pairs = _mapping_records(file)
    pairs = pairs.astype("str").apply(lambda column: column.str.strip()).drop_duplicates()
    unique = pairs.drop_duplicates("subset_img_id", keep=False)
    return pd.Series(unique["img_id"].to_numpy(), index=unique["subset_img_id"])


def _mapping_records(file: Path) -> pd.DataFrame:
    try:
        records = json.loads("\n".join(read_lines(file)))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read as json: {error}") from error
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise UserError(f"{file}: a list of records is expected, each with `subset_img_id` and `img_id`")
    for key in ("subset_img_id", "img_id"):
        number = next((number for number, record in enumerate(records, 1) if key not in record), None)
        if number:
            found = ", ".join(map(str, records[number - 1]))
            raise UserError(f"{file}: record {number} has no key {key} (found: {shortened(found)})")
    return pd.DataFrame(records, columns=["subset_img_id", "img_id"])


def read(root: Path, options: SourceOptions) -> SourceTable:
    """One row per labelled image that lies on disk, with its boxes in pixels of the DICOM image (1024×1024).

    A challenge `patientId` is an image. With RSNA's mapping to NIH images the patients are NIH's (`nih:1280`), and
    v1 splits them 70/15/15, stratified by the label. `legacy` repeats the published draws by image, seed 0: `split`
    of the linear probe (70/15/15), and `split_detection` of detection and segmentation (60/20/20: 16,010, 5,337 and
    5,337 images). No split depends on which image files are there.

    Raises:
        UserError: a missing file, table without its columns, or mapping of another structure.
    """
    file = find(root, LABELS, f"{LABELS}.gz")
    rows = read_table(file, ("patientId", *BOX_FIELDS, "Target"))
    table = images_of(rows, file.name)
    _add_classes(table, root)
    _add_patients(table, root)
    _add_splits(table, options)
    find(root, f"{IMAGES}/")
    files = {name for name in existing_files(root, [IMAGES], table) if name.endswith(".dcm")}
    table.frame["source"] = f"{IMAGES}/" + table.frame.pop("image") + ".dcm"
    table.match_files(files, f"{IMAGES}/" + rows["patientId"].str.strip() + ".dcm", file.name)
    return table


def images_of(rows: pd.DataFrame, name: str) -> SourceTable:
    """The rows of boxes as one row per image, sorted by id: label, boxes, published splits.

    Args:
        rows: columns patientId, x, y, width, height, Target; text.
        name: of the file, for messages.
    """
    table = SourceTable()
    cells = number_rows(rows, name, table).apply(lambda column: column.str.strip())
    numbers = cells[list(BOX_FIELDS)].apply(pd.to_numeric, errors="coerce").astype(float)
    published = pd.Series(sorted(set(cells["patientId"]) - {""}), dtype="str")
    table.frame = cells[[PLACE, "patientId", "Target"]].join(numbers)
    faults = _faults(cells, numbers)
    table.leave_out(faults != "", faults)
    targets = table.frame.groupby("patientId", sort=True)["Target"].first()
    boxed = table.frame[table.frame["Target"] == "1"]
    texts = boxes_by_image(boxed.assign(image=boxed["patientId"], label="Lung Opacity"))
    images = pd.Series(targets.index, dtype="str")
    table.frame = pd.DataFrame(
        {
            "image": images,
            "study_id": "rsna:" + images,
            "dataset": "rsna",
            "view": "FRONTAL",
            "label_Pneumonia": targets.astype(int).to_numpy(),
            "boxes": look_up(images, texts).replace("", "[]"),
            "split": images.map(pd.Series(published_splits(len(published), 0.3), index=published)),
            "split_detection": images.map(pd.Series(published_splits(len(published), 0.4), index=published)),
        }
    )
    return table


def _faults(cells: pd.DataFrame, numbers: pd.DataFrame) -> pd.Series:
    """What is wrong with each row, empty if nothing."""
    images, targets = cells["patientId"], cells["Target"]
    stated = ~cells[list(BOX_FIELDS)].isin(["", "nan", "NaN"])
    wrong = {  # the first that holds is reported
        "empty patientId": images == "",
        "Target is neither 0 nor 1": ~targets.isin(["0", "1"]),
        "the rows of this image disagree about Target": targets.groupby(images).transform("nunique") > 1,
        "a box with a value that is no number": (stated & ~np.isfinite(numbers)).any(axis=1),
        "Target is 1, but the box is missing or incomplete": (targets == "1") & ~stated.all(axis=1),
        "Target is 0, but there is a box": (targets == "0") & stated.any(axis=1),
        "a box with a negative corner": (numbers[["x", "y"]] < 0).any(axis=1),
        "a box without width or height": (numbers[["width", "height"]] <= 0).any(axis=1),
    }
    faults = pd.Series("", index=cells.index, dtype="str")
    for reason, rows in reversed(wrong.items()):
        faults = faults.mask(rows, reason)
    return with_image(faults, images)


def _add_classes(table: SourceTable, root: Path) -> None:
    """Add `rsna_class`: Normal, No Lung Opacity / Not Normal, or Lung Opacity; empty where it is not known."""
    file = find_optional(root, CLASSES, f"{CLASSES}.gz")
    if file is None:
        table.frame["rsna_class"] = ""
        table.notes.append(f"{CLASSES} is not there: `rsna_class` is empty")
        return
    pairs = read_table(file, ("patientId", "class"))[["patientId", "class"]]
    pairs = pairs.apply(lambda column: column.str.strip()).drop_duplicates()
    several = pairs["patientId"].duplicated(keep=False)
    if several.any():
        table.notes.append(
            f"{file.name}: {pairs['patientId'][several].nunique()} images with two classes; left empty"
        )
    classes = pairs[~several].set_index("patientId")["class"]
    table.frame["rsna_class"] = look_up(table.frame["image"], classes)


def _add_patients(table: SourceTable, root: Path) -> None:
    """Add `patient_id` and `nih_image`; with a mapping, images that it does not name are left out."""
    file = find_optional(root, *_PATTERNS)  # under its own name, else the first file that is called a mapping
    if file is None:
        table.frame["patient_id"] = table.frame["study_id"]
        table.notes.append(f"image-level split: without {MAPPING} the patients behind the images are not known")
        return
    frame = table.frame
    frame["nih_image"] = frame["image"].map(read_mapping(file))
    numbers = frame["nih_image"].str.extract(r"^(\d{1,12})_\d+(?:\.png)?$")[0].astype("Int64")
    frame["patient_id"] = "nih:" + numbers.astype("str")
    reason = f"{file.name} does not say which NIH image it is, so its patient is not known"
    table.leave_out(numbers.isna(), reason, frame["study_id"])


def _add_splits(table: SourceTable, options: SourceOptions) -> None:
    """Replace the published splits by v1's, or keep them."""
    frame = table.frame
    if options.split == "legacy":
        shared = int(frame.groupby("patient_id")["split"].nunique().gt(1).sum())
        table.notes.append(
            f"legacy split: by image, seed 0, as published; {shared} patients are in more than one split"
        )
        return
    frame["split"] = draw_splits(frame["patient_id"], options.seed, FRACTIONS, frame["label_Pneumonia"])
    table.frame = frame.drop(columns="split_detection")
