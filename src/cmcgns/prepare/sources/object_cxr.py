"""Object-CXR: foreign objects as boxes, ellipses and polygons."""

import math
from pathlib import Path

import pandas as pd

from cmcgns.common.errors import UserError
from cmcgns.data.boxes import boxes_text
from cmcgns.data.tables import read_table
from cmcgns.prepare.sources.base import PLACE, SourceOptions, SourceTable, existing_files, find
from cmcgns.prepare.sources.cells import draw_splits, number_rows, published_share

SHAPES = {"0": "box", "1": "ellipse", "2": "polygon"}
FRACTIONS = {"train": 0.9, "val": 0.1}


def read(root: Path, options: SourceOptions) -> SourceTable:
    """One row per image that stands in a table and lies on disk.

    `train.csv` is split 90/10 into training and validation: v1 is stratified by the label and drawn by the seed,
    `legacy` repeats the published draw (seed 0). `dev.csv` is the test set, as in published tables. The organisers'
    own test set, where it is there, has no split. No split depends on which image files are there.

    Raises:
        UserError: a missing file or folder, or a table without its columns.
    """
    tables = {part: find(root, f"{part}.csv", f"{part}.csv.gz") for part in ("train", "dev")}
    if any(root.glob("test.csv*")):
        tables["test"] = find(root, "test.csv", "test.csv.gz")
    parts = [_read_part(root, part, file, options) for part, file in tables.items()]
    table = SourceTable(pd.concat([part.frame for part in parts], ignore_index=True))
    table.left_out = [left for part in parts for left in part.left_out]
    table.notes.append("image-level split: the tables name no patients")
    if "test" in tables:
        table.notes.append(f"{tables['test'].name}: its images have no split; the protocols test on dev.csv")
    return table


def _read_part(root: Path, part: str, file: Path, options: SourceOptions) -> SourceTable:
    """The table of one folder; images without a file, and files that the table does not name, are left out."""
    rows = read_table(file, ("annotation",))
    if "image_name" not in rows and "image_path" in rows:  # as the organisers' page writes it
        rows = rows.rename(columns={"image_path": "image_name"})
    if "image_name" not in rows:
        raise UserError(f"{file}: missing column image_name (found: {', '.join(rows.columns)})")
    table = images_of(rows, part, file.name, options)
    find(root, f"{part}/")
    files = {name for name in existing_files(root, [part], table) if "/." not in name}
    table.match_files(files, _sources(rows, part), file.name)
    return table


def images_of(rows: pd.DataFrame, part: str, name: str, options: SourceOptions) -> SourceTable:
    """The rows of one table in the manifest's columns, in the table's order.

    Args:
        rows: columns image_name, annotation; text.
        part: train, dev or test: the folder of the images.
        name: of the file, for messages.
        options: rule and seed of the split.
    """
    table = SourceTable()
    rows = number_rows(rows, name, table)
    split = {"train": "train", "dev": "test"}.get(part, "")
    table.frame = pd.DataFrame({PLACE: rows[PLACE], "source": _sources(rows, part), "split": split})
    if part == "train":
        table.frame.loc[published_share(len(rows), 0.1), "split"] = "val"
    annotations = rows["annotation"].str.strip()
    parsed = [_boxes_or_fault(annotation) for annotation in annotations]
    table.frame["boxes"] = pd.Series([boxes for boxes, _ in parsed], dtype="str")
    faults = _faults(table.frame["source"], annotations, pd.Series([fault for _, fault in parsed], dtype="str"))
    table.leave_out(faults != "", faults)
    frame = table.frame
    frame["study_id"] = "object-cxr:" + frame["source"].str.replace(r"\.\w+$", "", regex=True)
    frame["patient_id"] = frame["study_id"]
    frame["dataset"], frame["view"] = "object-cxr", "FRONTAL"
    frame["label_Foreign Object"] = (frame["boxes"] != "[]").astype(int)
    if part == "train" and options.split == "v1":
        frame["split"] = draw_splits(frame["patient_id"], options.seed, FRACTIONS, frame["label_Foreign Object"])
    table.frame = frame.drop(columns=PLACE)
    return table


def _sources(rows: pd.DataFrame, part: str) -> pd.Series:
    """Image files relative to the root; only the last part of a name counts, whatever path stands before it."""
    return f"{part}/" + rows["image_name"].str.strip().str.replace(r"^.*[/\\]", "", regex=True)


def _faults(sources: pd.Series, annotations: pd.Series, faults: pd.Series) -> pd.Series:
    """The faults of the annotations, and those of rows that do not name one image."""
    disagree = annotations.groupby(sources).transform("nunique") > 1
    faults = faults.mask(disagree, "the rows of this image disagree")
    faults = faults.mask(sources.duplicated() & ~disagree, "this image stands in an earlier row")
    return faults.mask(sources.str.endswith("/"), "empty image_name")


def _boxes_or_fault(annotation: str) -> tuple[str, str]:
    try:
        return boxes_text(parse_annotation(annotation)), ""
    except UserError as error:
        return "[]", str(error)


def parse_annotation(annotation: str) -> list[dict[str, object]]:
    """The shapes of an annotation, each with its bounding box.

    Args:
        annotation: shapes between semicolons: `0 x1 y1 x2 y2` (box), `1 x1 y1 x2 y2` (ellipse within that box),
            `2 x1 y1 x2 y2 …` (polygon, three corners or more); nothing is no object.

    Returns:
        Per shape label, x, y, width, height, shape, and points: the corners of a polygon, the upper left and lower
        right corner of the others (put in that order if they are not). Pixels of the image.

    Raises:
        UserError: an unknown shape, a coordinate that is no number or missing, a shape without width or height.
    """
    return [_shape(*part.split()) for part in annotation.split(";") if part.strip()]


def _shape(kind: str, *words: str) -> dict[str, object]:
    if kind not in SHAPES:
        raise UserError(f"annotation: unknown shape {kind[:40]!r} (0 is a box, 1 an ellipse, 2 a polygon)")
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = [math.nan]
    if not all(map(math.isfinite, values)):
        raise UserError(f"annotation: a {SHAPES[kind]} with a coordinate that is no number")
    if kind == "2" and (len(values) < 6 or len(values) % 2):
        raise UserError(f"annotation: a polygon of {len(values)} coordinates; three pairs or more are expected")
    if kind != "2" and len(values) != 4:
        raise UserError(f"annotation: {SHAPES[kind]} of {len(values)} coordinates; x1 y1 x2 y2 are expected")
    left, right, top, bottom = min(values[::2]), max(values[::2]), min(values[1::2]), max(values[1::2])
    if left == right or top == bottom:
        raise UserError(f"annotation: a {SHAPES[kind]} without width or height")
    corners = zip(values[::2], values[1::2], strict=True) if kind == "2" else ((left, top), (right, bottom))
    box = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    return {"label": "Foreign Object"} | box | {"shape": SHAPES[kind], "points": [list(corner) for corner in corners]}
