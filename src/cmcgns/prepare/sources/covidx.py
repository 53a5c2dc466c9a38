"""COVIDx: a benchmark put together from public collections, with list files that name patient, file and class."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from cmcgns.common.errors import UserError
from cmcgns.data.text_files import read_lines
from cmcgns.prepare.sources.base import PLACE, OtherLayout, SourceOptions, SourceTable, existing_files
from cmcgns.prepare.sources.cells import draw_splits, finish, look_up, quoted

_NORMAL, _PNEUMONIA, _COVID = "label_Normal", "label_Pneumonia", "label_COVID-19"
_LABELS = {
    "normal": {_NORMAL: 1, _PNEUMONIA: 0, _COVID: 0},
    "pneumonia": {_NORMAL: 0, _PNEUMONIA: 1, _COVID: 0},
    "covid-19": {_NORMAL: 0, _PNEUMONIA: 0, _COVID: 1},
    "negative": {_COVID: 0},
    "positive": {_COVID: 1},
}
# Read from the end: names in front may hold blanks, and the oldest lists have no source.
_LINE = re.compile(
    r"^\s*(?P<names>.+?)\s+(?P<kind>normal|pneumonia|covid-19|negative|positive)(?:\s+(?P<origin>\S+))?\s*$", re.I
)
_LONGEST = 500  # characters; what tells a line's names from its class tries every blank with every other
_TRAIN_SHARE = 0.8


def read(root: Path, options: SourceOptions) -> SourceTable:
    """Rows of the train and test lists, and of the validation list that later versions have.

    Raises:
        UserError: no list, or lists of several versions.
    """
    lists = _find_lists(root)
    table = SourceTable()
    files = existing_files(root, table=table)
    deepest_first = sorted(files, key=lambda path: (path.count("/"), path), reverse=True)
    images = {"/".join(path.split("/")[-2:]): path for path in deepest_first}
    table.frame = pd.concat([_read_list(path, part) for part, path in lists.items()], ignore_index=True)
    _parse(table, images)
    table.unused(path for key, path in images.items() if key.partition("/")[0] in lists and not key.endswith(".txt"))
    _split(table, options, "val" in lists)
    table.notes.append("COVIDx takes images from other collections, RSNA's (that is NIH's) among them")
    return finish(table)


def _find_lists(root: Path) -> dict[str, Path]:
    """Part -> list file: `train.txt`, or `train_COVIDx9A.txt` with the test list of the same or the only version."""
    train = _one(root, "train", "")
    version = train.name.removeprefix("train").removesuffix(".txt")
    lists = {"train": train, "test": _one(root, "test", version)}
    validation = train.with_name(f"val{version}.txt")
    return lists | ({"val": validation} if validation.is_file() else {})


def _one(root: Path, part: str, version: str) -> Path:
    patterns = [f"{part}{version}.txt", f"{part}.txt", f"{part}_COVIDx*.txt", f"{part}_split*.txt"]
    for place in ("", "labels/", "*/"):
        for pattern in dict.fromkeys(patterns):
            found = sorted(root.glob(place + pattern))
            if len(found) > 1:
                names = ", ".join(path.name for path in found)
                raise UserError(f"{root}: {len(found)} {part} lists ({names}); keep those of one version")
            if found:
                return found[0]
    raise OtherLayout(f"{root}: no {part} list is there (looked for {', '.join(dict.fromkeys(patterns))})")


def _read_list(path: Path, part: str) -> pd.DataFrame:
    lines = [(number, line) for number, line in enumerate(read_lines(path), start=1) if line.strip()]
    places = [f"{path.name}, line {number}" for number, _ in lines]
    return pd.DataFrame({"_line": [line for _, line in lines], "_part": part, PLACE: places}).astype("str")


def _parse(table: SourceTable, images: dict[str, str]) -> None:
    """Patient, image and labels of every line; lines of another form are left out."""
    lines = table.frame["_line"]
    fields = lines.mask(lines.str.len() > _LONGEST, "").str.extract(_LINE)
    kind, origin = fields["kind"].str.lower(), fields["origin"].fillna("").astype("str")
    names = [
        _patient_and_file(str(text), part, images) if isinstance(text, str) else ("", "")
        for text, part in zip(fields["names"], table.frame["_part"], strict=True)
    ]
    table.frame = table.frame.assign(
        _kind=kind, _origin=origin, _patient=[a for a, _ in names], _file=[b for _, b in names]
    )
    unknown = kind.isna()
    damaged = table.frame["_line"].str.contains("\0", regex=False)
    bad = unknown | damaged | (table.frame["_patient"] == "")
    reasons = pd.Series("line is not `patient file class source`", index=kind.index).mask(
        unknown, "no class (" + ", ".join(_LABELS) + ") in " + quoted(table.frame["_line"])
    )
    table.leave_out(bad, reasons.mask(damaged, "NUL bytes: the file is damaged"))
    frame = table.frame
    for label in (_NORMAL, _PNEUMONIA, _COVID):
        values = frame["_kind"].map({kind: labels.get(label) for kind, labels in _LABELS.items()}).astype("Int8")
        if values.notna().any():
            frame[label] = values
    keys = frame["_part"] + "/" + frame["_file"]
    collection = frame["_origin"].where(frame["_origin"] == "", frame["_origin"] + "/")  # collections number alike
    prefix = ("covidx:" + collection).mask(frame["_origin"] == "rsna", "rsna:")  # these are the challenge's own ids
    table.frame = frame.assign(
        dataset="covidx",
        source=look_up(keys, images),
        patient_id=prefix + frame["_patient"],
        study_id="covidx:" + frame["_file"],
        view="FRONTAL",
    )


def _patient_and_file(text: str, part: str, images: dict[str, str]) -> tuple[str, str]:
    """Where the patient ends and the file name begins: at the blank that leaves the name of a file that is there."""
    cuts = [(text[: match.start()], text[match.end() :]) for match in re.finditer(r"\s+", text)]
    for patient, file in cuts:
        if f"{part}/{file}" in images:
            return patient, file
    for patient, file in cuts:
        if file.rpartition(".")[0] == patient:
            return patient, file
    return cuts[0] if cuts else ("", "")


def _split(table: SourceTable, options: SourceOptions, listed: bool) -> None:
    """v1: no patient in two splits; legacy: the lists as they stand, validation by row."""
    frame = table.frame
    train = frame["_part"] == "train"
    split = frame["_part"].copy()
    if options.split == "legacy":
        if not listed:
            order = np.random.default_rng(options.seed).permutation(int(train.sum()))
            names = frame[train].sort_values("_file").index[order]
            split[names[round(_TRAIN_SHARE * len(names)) :]] = "val"
        table.notes.append(
            "legacy split: lists as they stand" + ("" if listed else ", 80/20 of the train list by row")
        )
    else:
        if not listed:
            shares = {"train": _TRAIN_SHARE, "val": 1 - _TRAIN_SHARE}
            split[train] = draw_splits(frame.loc[train, "patient_id"], options.seed, shares)
        later = {"train": ("val", "test"), "val": ("test",), "test": ()}
        shared = pd.Series(False, index=frame.index)
        for name, others in later.items():
            shared |= (split == name) & frame["patient_id"].isin(frame.loc[split.isin(others), "patient_id"])
        split[shared] = ""
        table.notes.append(
            f"v1 split: test list; val {'as listed' if listed else f'is 20% of the patients, seed {options.seed}'}; "
            f"{int(shared.sum())} rows of patients in two lists are in no split"
        )
    frame["split"] = split
