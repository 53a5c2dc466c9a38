"""VinDr-CXR: 18,000 PA radiographs with 28 labels and boxes, three radiologists per training image."""

from pathlib import Path

import pandas as pd

from cmcgns.data.boxes import boxes_text
from cmcgns.data.manifest import LABEL, label_columns
from cmcgns.prepare.sources.base import PLACE, SourceOptions, SourceTable, by_name, existing_files, find
from cmcgns.prepare.sources.cells import (
    boxes_by_image,
    draw_splits,
    drop_bad_boxes,
    finish,
    look_up,
    read_labels,
    read_rows,
)

_NORMAL = "No finding"
_CORNERS = ("x_min", "y_min", "x_max", "y_max")


def read(root: Path, options: SourceOptions) -> SourceTable:
    """PhysioNet's release (two tables a part), or Kaggle's (`train.csv`, without labels of its test images).

    A label is 1 where more than half of an image's readers say so; boxes of all readers are kept, each with its
    reader's `rad_id` (the test images have one consensus).

    Raises:
        UserError: a table is missing or malformed.
    """
    table = SourceTable()
    first = find(
        root, "annotations/image_labels_train.csv", "image_labels_train.csv", "*/annotations/image_labels_train.csv",
        "*/*/annotations/image_labels_train.csv", "train.csv", "*/train.csv",
    )  # fmt: skip
    kaggle = first.name == "train.csv"
    parts = (
        [_kaggle(first, table)] if kaggle else [_physionet(first.parent, part, table) for part in ("train", "test")]
    )
    frame = pd.concat(parts, ignore_index=True)
    files = by_name(existing_files(root, table=table), (".dicom", ".dcm"))
    stems = {name.rpartition(".")[0]: path for name, path in files.items()}
    table.frame = frame.assign(
        dataset="vindr",
        source=look_up(frame["image"], stems),
        patient_id="vindr:" + frame["image"],
        study_id="vindr:" + frame["image"],
        view="PA",
    )
    table.unused(stems.values())
    _split(table, kaggle, options)
    table.notes.append("VinDr-CXR publishes no patient ids: every image counts as its own patient")
    table.notes.append("labels are 1 where more than half of the readers say so; boxes of all readers are kept")
    return finish(table)


def _physionet(folder: Path, part: str, table: SourceTable) -> pd.DataFrame:
    """Images of `image_labels_{part}.csv` with the boxes of `annotations_{part}.csv`."""
    rows = read_rows(folder / f"image_labels_{part}.csv", table, ("image_id",))
    rows = rows.rename(columns={"Other disease": "Other diseases"})  # the test table's spelling
    findings = [str(name) for name in rows if name not in ("image_id", "rad_id", PLACE, "")]
    readers = SourceTable(rows)
    read_labels(readers, {LABEL + finding: finding for finding in findings})
    table.left_out += readers.left_out
    boxes = read_rows(folder / f"annotations_{part}.csv", table, ("image_id", "class_name", *_CORNERS))
    return _merge_readers(readers.frame, boxes, table).assign(_part=part)


def _kaggle(path: Path, table: SourceTable) -> pd.DataFrame:
    """Images of `train.csv`, which has a row per box and reader, and one for each reader who found nothing."""
    rows = read_rows(path, table, ("image_id", "class_name", "rad_id", *_CORNERS))
    found = pd.crosstab([rows["image_id"], rows["rad_id"]], rows["class_name"]).clip(upper=1).astype("Int8")
    readers = found.add_prefix(LABEL).reset_index()
    places = rows.drop_duplicates(["image_id", "rad_id"])[["image_id", "rad_id", PLACE]]
    return _merge_readers(readers.merge(places, on=["image_id", "rad_id"]), rows, table).assign(_part="train")


def _merge_readers(readers: pd.DataFrame, boxes: pd.DataFrame, table: SourceTable) -> pd.DataFrame:
    """One row per image: majority of the readers' labels, all of their boxes."""
    labels = label_columns(readers)
    grouped = readers.groupby("image_id", sort=True)
    share = grouped[labels].mean()
    merged = (share > 0.5).astype("Int8").where(share.notna())
    merged[PLACE] = grouped[PLACE].first()
    marked = boxes[boxes["class_name"] != _NORMAL].rename(columns={"image_id": "image", "class_name": "label"})
    # Without rows `to_numeric` leaves text.
    corners = marked[list(_CORNERS)].apply(pd.to_numeric, errors="coerce").astype("float64")
    marked = marked.assign(
        x=corners["x_min"],
        y=corners["y_min"],
        width=corners["x_max"] - corners["x_min"],
        height=corners["y_max"] - corners["y_min"],
    )
    by_image = boxes_by_image(drop_bad_boxes(marked, table), ("rad_id",) if "rad_id" in marked else ())
    merged = merged.reset_index().rename(columns={"image_id": "image"})
    merged["boxes"] = merged["image"].map(by_image).astype(object).fillna(boxes_text([])).astype("str")
    return merged


def _split(table: SourceTable, kaggle: bool, options: SourceOptions) -> None:
    frame = table.frame
    shares = {"train": 0.7, "val": 0.1, "test": 0.2} if kaggle else {"train": 0.9, "val": 0.1}
    train = frame["_part"] == "train"
    frame["split"] = "test"
    frame.loc[train, "split"] = draw_splits(frame.loc[train, "patient_id"], options.seed, shares)
    if kaggle:
        table.notes.append(
            "Kaggle's form has no labels of its test images: 70/10/20 of the training images are drawn"
        )
    else:
        table.notes.append(f"official split; val is 10% of its training images, drawn by seed {options.seed}")
