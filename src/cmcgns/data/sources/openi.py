"""Open-i: the chest radiographs and reports of Indiana University, as XML and PNG or in the csv form."""

import os
from pathlib import Path

import pandas as pd

from cmcgns.data.section_rules import load_rules
from cmcgns.data.sections import remove_marks
from cmcgns.data.sources.base import Source, SourceOptions, SourceTable, draw_splits, read_table
from cmcgns.data.sources.openi_xml import COLUMNS, read_xml

FRACTIONS = {"train": 0.8, "val": 0.1, "test": 0.1}
_PROJECTIONS = {"frontal": "FRONTAL", "lateral": "LATERAL", "": ""}


def read(root: Path, options: SourceOptions) -> SourceTable:
    """Every image of a report with findings or an impression.

    Args:
        root: the folder with `indiana_reports.csv`, or with `ecgen-radiology`.
        options: the seed of the split by patient, and the rules for marks.

    Raises:
        UserError: neither form is there, or a table that cannot be read.
    """
    reports, table = _read_csv(root) if (root / "indiana_reports.csv").is_file() else read_xml(root)
    rules = load_rules(options.rules)
    # Drawn from all reports, so that the split does not depend on which images are there.
    reports["split"] = draw_splits("openi:CXR" + reports["study"], options.seed, FRACTIONS)
    for section in ("findings", "impression"):
        reports[section] = [remove_marks(text, rules).strip() for text in reports[section]]
    _join(root, table, reports)
    table.frame["dataset"] = "openi"
    table.frame["study_id"] = "openi:CXR" + table.frame["study"]
    table.frame["patient_id"] = table.frame["study_id"]
    table.frame = table.frame.drop(columns=["study", "name", "where"])
    table.notes.append(
        f"split: none is published; drawn by patient with seed {options.seed} (80 % train, 10 % val, 10 % test), "
        "under v1 and legacy alike; every report counts as a patient, because patients are not named"
    )
    return table


def _join(root: Path, table: SourceTable, reports: pd.DataFrame) -> None:
    """Give every image its file and its report; leave out what lacks one."""
    images = _images(root)
    table.left_out += [
        {"where": path, "reason": "no report names it"} for path in images[~images.index.isin(table.frame["name"])]
    ]
    pictured = reports["study"].isin(table.frame["study"])
    table.left_out += [
        {"where": f"CXR{study}", "reason": "the report names no image"} for study in reports.loc[~pictured, "study"]
    ]
    table.frame["source"] = table.frame["name"].map(images)
    table.frame = table.frame.merge(reports, on="study", how="left").assign(row=range(len(table.frame)))
    frame = table.frame
    for reason, bad in (
        ("the image is named twice", frame.duplicated("name")),
        ("the image is not there", frame["source"].isna()),
        ("its report is not there", frame["split"].isna()),
        ("its report has neither findings nor impression", frame["findings"] + frame["impression"] == ""),
    ):
        table.leave_out(bad.loc[table.frame["row"]], table.frame["where"], reason)
    table.frame = table.frame.drop(columns="row")


def _images(root: Path) -> pd.Series:
    """File name -> path below the root, of all PNG files; of equal names the first in order."""
    paths = [
        Path(folder, name).relative_to(root).as_posix()
        for folder, _, names in os.walk(root)
        for name in names
        if name.lower().endswith(".png")
    ]
    series = pd.Series(sorted(paths), dtype="str")
    series.index = pd.Index([path.rsplit("/", 1)[-1] for path in series], dtype="str")
    return series[~series.index.duplicated()]


def _read_csv(root: Path) -> tuple[pd.DataFrame, SourceTable]:
    listed = read_table(root / "indiana_reports.csv", ("uid", "MeSH", "findings", "impression"))
    file = root / "indiana_projections.csv"
    images = read_table(file, ("uid", "filename", "projection")).fillna("")
    reports = listed.rename(columns={"uid": "study", "MeSH": "mesh"})[list(COLUMNS)].fillna("")
    repeated = reports.duplicated("study")
    table = SourceTable(
        pd.DataFrame(
            {
                "study": images["uid"].str.strip(),
                "name": images["filename"].str.strip(),
                "view": images["projection"].str.strip().str.lower().map(_PROJECTIONS).fillna("OTHER"),
                "where": f"{file.name}, row " + pd.Series(range(1, len(images) + 1)).astype("str"),
            }
        ),
        [{"where": f"indiana_reports.csv, row {i + 1}", "reason": "the uid stands there twice"}
         for i in repeated.index[repeated]],
    )  # fmt: skip
    return reports[~repeated].reset_index(drop=True), table


SOURCE = Source(
    name="openi",
    title="Indiana University Chest X-ray Collection (Open-i, National Library of Medicine)",
    task="pretraining",
    licence="CC BY-NC-ND 4.0",
    size="see the official page (7,470 images, 3,955 reports)",
    url="https://openi.nlm.nih.gov/faq#collection",
    layout=(
        "ecgen-radiology/1.xml … (unpacked NLMCXR_reports.tgz)",
        "NLMCXR_png/CXR1_1_IM-0001-3001.png … (unpacked NLMCXR_png.tgz)",
        "or the csv form (https://www.kaggle.com/datasets/raddar/chest-xrays-indiana-university): "
        "indiana_reports.csv, indiana_projections.csv, images/images_normalized/*.png",
    ),
    read=read,
)
