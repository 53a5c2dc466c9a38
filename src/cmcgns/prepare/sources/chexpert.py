"""CheXpert: 224,316 radiographs with 14 labels drawn from reports; validation and test sets read by radiologists."""

from pathlib import Path

import numpy as np
import pandas as pd

from cmcgns.data.manifest import LABEL
from cmcgns.data.vocabulary import CHEXPERT_FINDINGS, parse_ages, parse_sexes
from cmcgns.prepare.sources.base import SourceOptions, SourceTable, existing_files, find, find_optional
from cmcgns.prepare.sources.cells import draw_splits, finish, look_up, quoted, read_labels, read_rows

VALIDATION_SHARE = 0.025  # of the training patients: about 5,600 of 223,414 images
LEGACY_VALIDATION_ROWS = 5000
_DETAILS = ("Sex", "Age", "Frontal/Lateral", "AP/PA")
_KEY = r"(((patient\d+)/study\d+)/view\d+_(\w+))\.\w+$"  # the end of a path, the same in every release
_STUDY = r"(patient\d+/study\d+)/?$"


def read(root: Path, options: SourceOptions) -> SourceTable:
    """Rows of train.csv, valid.csv and, where they are there, of the test set's labels.

    Images are found by patient, study and view, so that all releases fit: `-small`, the full one, and the full one in
    its batches.

    Raises:
        UserError: a table is missing or malformed.
    """
    folder = find(root, "train.csv", "*/train.csv", "*/*/train.csv").parent
    table = SourceTable()
    images = _index(existing_files(root, table=table), folder.relative_to(root).as_posix())
    required = ("Path", *_DETAILS, *CHEXPERT_FINDINGS)
    parts = {name: read_rows(folder / f"{name}.csv", table, required) for name in ("train", "valid")}
    parts["test"] = _test_rows(root, images, table)
    table.frame = pd.concat([rows.assign(_part=name) for name, rows in parts.items()], ignore_index=True)
    _name(table, images)
    read_labels(table, {LABEL + finding: finding for finding in CHEXPERT_FINDINGS})
    held = _five_by_200(root, table)
    table.frame["split"] = _splits(table, options, held)
    if held:  # a column of its own: these images are in no split, and are what retrieval by class is tested on
        listed = table.frame["_key"].isin(held) & (table.frame["_part"] == "train")
        table.frame["split_5x200"] = listed.map({True: "test", False: ""})
    return finish(table)


def _index(files: set[str], folder: str) -> pd.Series:
    """`patient/study/view` -> image; a file of the tables' own folder goes before those of another release."""
    paths = pd.Series(sorted(files, key=lambda path: (not path.startswith(f"{folder}/"), path)), dtype="str")
    keys = paths.str.extract(_KEY)[0]
    return pd.Series(paths.to_numpy(), index=keys.to_numpy())[lambda s: s.index.notna() & ~s.index.duplicated()]


def _keys(paths: pd.Series) -> pd.DataFrame:
    """Key, study, patient and side of every path; backslashes count as slashes."""
    return paths.str.replace("\\", "/", regex=False).str.extract(_KEY)


def _test_rows(root: Path, images: pd.Series, table: SourceTable) -> pd.DataFrame:
    """Labels of the 500 test studies: `test_labels.csv` has a row per image, `groundtruth.csv` one per study."""
    names = ("test_labels.csv", "groundtruth.csv")
    file = find_optional(root, *(place + name for name in names for place in ("", "*/", "*/*/")))
    if file is None:
        return pd.DataFrame()
    rows = read_rows(file, table, CHEXPERT_FINDINGS)
    if "Path" in rows:
        return rows
    if "Study" not in rows:
        rows = read_rows(file, table, ("Path",))  # says what is missing
    keys = pd.DataFrame({"Path": images.to_numpy(), "_study": images.index.str.rpartition("/").get_level_values(0)})
    studies = rows["Study"].str.replace("\\", "/", regex=False).str.extract(_STUDY)[0]
    return rows.assign(_study=studies).merge(keys, on="_study", how="left").fillna("")


def _name(table: SourceTable, images: pd.Series) -> None:
    """Ids, image, view, sex and age; rows whose path names no patient, study and view are left out."""
    paths = table.frame["Path"].fillna("").astype("str")
    names = _keys(paths)
    table.frame = table.frame.assign(_key=names[0], _study=names[1], _patient=names[2], _side=names[3])
    table.leave_out(names[0].isna(), "Path is " + quoted(paths) + "; …/patient00001/study1/view1_… is expected")
    frame = table.frame
    details = frame.reindex(columns=list(_DETAILS)).fillna("").astype("str")
    side = details["Frontal/Lateral"].where(details["Frontal/Lateral"] != "", frame["_side"])
    beam = details["AP/PA"].where(details["AP/PA"].isin(("AP", "PA")), "FRONTAL")
    table.frame = frame.assign(
        dataset="chexpert",
        source=look_up(frame["_key"], images),
        patient_id="chexpert:" + frame["_patient"],
        study_id="chexpert:" + frame["_study"],
        view=beam.where(side.str.lower() == "frontal", "LATERAL"),
        sex=parse_sexes(details["Sex"]),
        age=parse_ages(details["Age"]).where(details["Age"] != "0"),  # 0 stands for unknown: all patients are adults
    )
    table.unused(images)


def _five_by_200(root: Path, table: SourceTable) -> set[str]:
    """Keys of CheXpert-5x200, which serves retrieval, where its list is there."""
    file = find_optional(root, "chexpert_5x200.csv", "*/chexpert_5x200.csv")
    return set() if file is None else set(_keys(read_rows(file, table, ("Path",))["Path"])[0].dropna())


def _splits(table: SourceTable, options: SourceOptions, held: set[str]) -> pd.Series:
    frame = table.frame
    train, valid, test = (frame["_part"] == part for part in ("train", "valid", "test"))
    split = pd.Series("", index=frame.index, dtype="str")
    kept = train & frame["_key"].isin(held)
    if options.split == "legacy":
        split[train & ~kept] = "train"
        split[_legacy_validation(frame[train & ~kept], options.seed)] = "val"
        split[valid] = "test"
        split[frame["view"] == "LATERAL"] = ""
        table.notes.append(
            "legacy split: by row (patients are in train and val), test = valid.csv, frontal images only"
        )
    else:
        kept = train & frame["_patient"].isin(frame.loc[kept, "_patient"])
        shares = {"train": 1 - VALIDATION_SHARE, "val": VALIDATION_SHARE}
        split[train] = draw_splits(frame.loc[train, "patient_id"], options.seed, shares)
        split[kept] = ""
        labelled = bool((test & (frame["source"] != "")).any())
        split[test if labelled else valid] = "test"
        table.notes.append(
            f"v1 split: val is {VALIDATION_SHARE:.1%} of the training patients, seed {options.seed}; test is "
            + ("the 500-study test set (valid.csv is in no split)" if labelled else "the official valid.csv")
        )
    if held:
        whose = "" if options.split == "legacy" else "and the other images of their patients "
        table.notes.append(f"CheXpert-5x200: {int(kept.sum())} training images {whose}are in no split")
    else:
        table.notes.append("chexpert_5x200.csv is not there: its images are part of the training set")
    return split


def _legacy_validation(frame: pd.DataFrame, seed: int) -> pd.Index:
    """5,000 rows at random (a tenth, if there are few), whatever their order in the file."""
    ordered = frame.sort_values("_key").index
    size = min(LEGACY_VALIDATION_ROWS, len(ordered) // 10)
    return ordered[np.random.default_rng(seed).choice(len(ordered), size, replace=False)]
