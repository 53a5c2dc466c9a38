"""NIH ChestX-ray14: 112,120 frontal radiographs of 30,805 patients, 14 labels drawn from reports, 984 boxes."""

import re
from pathlib import Path

import pandas as pd

from cmcgns.common.errors import UserError, shortened
from cmcgns.data.boxes import BOX_FIELDS
from cmcgns.data.delimited import read_cells
from cmcgns.data.manifest import LABEL
from cmcgns.data.text_files import read_lines
from cmcgns.data.vocabulary import parse_ages, parse_sexes, parse_views
from cmcgns.prepare.sources.base import SourceOptions, SourceTable, by_name, existing_files, find, find_optional
from cmcgns.prepare.sources.cells import (
    boxes_by_image,
    draw_splits,
    drop_bad_boxes,
    finish,
    look_up,
    number_rows,
    quoted,
    read_rows,
)

FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis", "Hernia",
    "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax",
)  # fmt: skip
_NORMAL = "No Finding"
_FOLDER = re.compile(r"(^|/)images(_\d+)?/[^/]+$")  # not those of copies in other sizes, which the boxes do not fit
_BOX_HEADER = ["Image Index", "Finding Label", "Bbox [x", "y", "w", "h]"]  # "Bbox [x,y,w,h]" cut at its commas


def read(root: Path, options: SourceOptions) -> SourceTable:
    """Rows of `Data_Entry_2017*.csv` with the boxes of `BBox_List_2017.csv`, if that is there.

    Raises:
        UserError: a table is missing or malformed.
    """
    table = SourceTable()
    path = find(root, "Data_Entry_2017*.csv", "*/Data_Entry_2017*.csv")
    required = ("Image Index", "Finding Labels", "Patient ID", "Patient Age", "View Position")
    rows = read_rows(path, table, required)
    files = existing_files(root, table=table)
    names = by_name(filter(_FOLDER.search, files), (".png",))
    image = rows["Image Index"].str.strip()
    sex = rows.get("Patient Gender", rows.get("Patient Sex", pd.Series("", index=rows.index)))
    view, _ = parse_views(rows["View Position"])
    number = pd.to_numeric(rows["Patient ID"], errors="coerce").astype("Float64")
    table.frame = rows.assign(
        dataset="nih",
        _image=image,
        source=look_up(image, names),
        patient_id="nih:" + number.where(number % 1 == 0).astype("Int64").astype("str"),
        study_id="nih:" + image.str.replace(r"\.\w+$", "", regex=True),
        view=view,
        sex=parse_sexes(sex),
        age=parse_ages(rows["Patient Age"]),
        boxes=look_up(image, _boxes(root, table)),
    )
    table.unused(names.values())
    wrong = ~(number % 1 == 0).fillna(False).astype(bool)
    table.leave_out(wrong, "Patient ID is " + quoted(rows["Patient ID"]) + "; a whole number is expected")
    _read_findings(table)
    _split(table, path.parent, options)
    return finish(table)


def _read_findings(table: SourceTable) -> None:
    """14 labels from `A|B`; "No Finding" makes all of them 0."""
    cells = table.frame["Finding Labels"].str.strip()
    parts = {cell: {part.strip() for part in cell.split("|")} for cell in cells.unique()}
    for finding in FINDINGS:
        table.frame[LABEL + finding] = cells.map({cell: int(finding in found) for cell, found in parts.items()})
    known = {*FINDINGS, _NORMAL}
    strange = {cell: ", ".join(map(repr, sorted(found - known))) for cell, found in parts.items()}
    unknown = cells.map(strange)
    table.leave_out(unknown != "", "Finding Labels has the unknown " + unknown)


def _boxes(root: Path, table: SourceTable) -> dict[str, str]:
    """Image -> boxes in pixels of the published 1024 px images; images that are not listed were not annotated."""
    path = find_optional(root, "BBox_List_2017*.csv", "*/BBox_List_2017*.csv")
    if path is None:
        return {}
    names, cells = read_cells(path)
    header = [name.strip() for name in names]  # three nameless columns follow in the official file
    if header[: len(_BOX_HEADER)] != _BOX_HEADER:
        found, wanted = shortened(",".join(header)), ",".join(_BOX_HEADER)
        raise UserError(f"{path}: the header is {found!r}; {wanted!r} is expected")
    boxes = cells.iloc[:, :6].set_axis(["image", "label", *BOX_FIELDS], axis=1)
    boxes = number_rows(boxes, path.name, table)
    boxes["label"] = boxes["label"].replace("Infiltrate", "Infiltration")  # two spellings of one finding
    return boxes_by_image(drop_bad_boxes(boxes, table))


def _split(table: SourceTable, folder: Path, options: SourceOptions) -> None:
    """The official lists, with a part of the training patients for validation; drawn if there are no lists."""
    frame = table.frame
    lists = [folder / "train_val_list.txt", folder / "test_list.txt"]
    if not all(path.is_file() for path in lists):
        shares = {"train": 0.7, "val": 0.1, "test": 0.2}
        frame["split"] = draw_splits(frame["patient_id"], options.seed, shares)
        table.notes.append("train_val_list.txt and test_list.txt are not both there: 70/10/20 drawn by patient")
        return
    train, test = (frame["_image"].isin(set(map(str.strip, read_lines(path)))) for path in lists)
    frame["split"] = pd.Series("", index=frame.index, dtype="str").mask(test, "test")
    frame.loc[train, "split"] = draw_splits(
        frame.loc[train, "patient_id"], options.seed, {"train": 0.875, "val": 0.125}
    )
    table.notes.append(f"official split; val is 12.5% of its training patients, drawn by seed {options.seed}")
    unlisted = int((~train & ~test).sum())
    if unlisted:
        table.notes.append(f"{unlisted} images are in neither list and in no split")
    table.leave_out(train & test, "in train_val_list.txt and in test_list.txt")
