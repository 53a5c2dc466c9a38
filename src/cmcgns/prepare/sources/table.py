"""A table of one's own: csv or parquet, with a mapping from the manifest's column names to the table's."""

import json
from pathlib import Path
from shlex import quote

import pandas as pd

from cmcgns.common.errors import UserError, did_you_mean, shortened
from cmcgns.data.boxes import box_fault
from cmcgns.data.manifest import LABEL, REPORT_COLUMNS, TEXT
from cmcgns.data.paths import images_folder, is_of_another_system, relative_paths
from cmcgns.data.tables import (
    as_text,
    describe_columns,
    find_table,
    is_parquet,
    map_once,
    read_table,
    refuse_nested,
    refuse_twins,
)
from cmcgns.data.vocabulary import canonical_ids, parse_ages, parse_sexes, parse_splits, parse_views
from cmcgns.prepare.sources.base import SourceOptions, SourceTable, existing_files
from cmcgns.prepare.sources.cells import draw_splits, finish, number_rows, quoted, read_labels
from cmcgns.prepare.sources.reports import cut_reports

COLUMNS = (*(name for name in TEXT if name not in ("source", "sha256")), "age")
_SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


def read(root: Path, options: SourceOptions) -> SourceTable:
    """Rows of the one table in the root, or of the file that the root is.

    Paths are relative to the table's folder, or to the folder of images that the options name. Only `image_path` is
    needed. Labels are the columns `label_…`, own or mapped; splits stay as they are and are drawn by patient where
    they are missing.

    Raises:
        UserError: no table, several, an unreadable one, a mapping to columns that are not there, or no such folder.
    """
    file = find_table(root)
    table = SourceTable()
    cells = read_table(file, form=options.form)
    theirs = pd.DataFrame({str(name): as_text(cells[name]) for name in cells})  # stripped, words for nothing empty
    ours = _map_columns(theirs, options.columns, file)
    refuse_nested(cells, ours.values(), file)
    unused = sorted(set(theirs.columns) - set(ours.values()))
    table.frame = number_rows(theirs[list(ours.values())].set_axis(list(ours), axis=1), file.name, table)
    _refuse_without_effect(table.frame, options, file)
    if unused:
        table.notes.append(f"columns that are not used: {shortened(', '.join(unused), 1000)}")
    _check_files(table, images_folder(options.images, file, "--images"))
    labels = [name for name in ours if name.startswith(LABEL)]
    read_labels(table, {name: name for name in labels})
    _check_boxes(table)
    cut_reports(table, options.rules)
    _describe(table, options.dataset or "table")
    _describe_patients(table)
    _split(table, options.seed)
    return finish(table)


def _refuse_without_effect(frame: pd.DataFrame, options: SourceOptions, file: Path) -> None:
    """Options that this table leaves nothing to do."""
    stated = [name for name in ("dataset", "split") if name in frame and (frame[name] != "").all()]
    usual = SourceOptions()
    for given, reason in (
        (
            options.rules != usual.rules and not {*REPORT_COLUMNS} & {*frame},
            "--rules: it has no report, findings or impression",
        ),
        (options.dataset != usual.dataset and "dataset" in stated, "--dataset: its column dataset names every row's"),
        (options.form != usual.form and is_parquet(file), "--separator or --encoding: a parquet file has neither"),
        (options.seed != usual.seed and "split" in stated, "--seed: its column split has no gap, so none is drawn"),
    ):
        if given:
            raise UserError(f"{file}: no effect on it has {reason}; leave the option out")


def _map_columns(frame: pd.DataFrame, mapping: dict[str, str], file: Path) -> dict[str, str]:
    """Our column -> the table's, for all columns that are used."""
    for ours, theirs in mapping.items():
        if ours not in COLUMNS and not ours.startswith(LABEL):
            hint = did_you_mean(ours, COLUMNS) or f" They are {', '.join(COLUMNS)} and {LABEL}…."
            raise UserError(f"--column {ours}: no column of a manifest is called so.{hint}")
        if theirs not in frame:
            found = describe_columns(theirs, list(frame.columns))
            raise UserError(f"{file}: missing column {shortened(theirs)}, named for {ours} {found}")
    own = {str(name): str(name) for name in frame if name in COLUMNS or str(name).startswith(LABEL)}
    used = own | mapping
    if "image_path" not in used:
        hint = "; map names with --column OURS=THEIRS"
        found = describe_columns("image_path", list(frame.columns), hint)
        raise UserError(f"{file}: missing column image_path {found}")
    refuse_twins(list(frame.columns), COLUMNS, mapping, lambda pair: f"--column {quote(pair)}", file)
    return used


def _check_files(table: SourceTable, folder: Path) -> None:
    """Images and masks must be there, below the folder where paths start."""
    named = [name for name in ("image_path", "mask_path") if name in table.frame]
    for name in named:
        cells = table.frame[name]
        paths, leaves = relative_paths(cells, folder)
        table.frame[name] = paths
        reasons = _why_not_usable(cells, paths, leaves, name, folder)
        table.leave_out(reasons != "", cells.map(shortened) + ": " + reasons)
    table.leave_out(table.frame["image_path"] == "", "no image_path")
    known = {str(path) for name in named for path in table.frame[name].unique() if path}
    folders = sorted({path.partition("/")[0] if "/" in path else "" for path in known})
    files = existing_files(folder, [""] if "" in folders else folders, table)
    for name in named:
        paths = table.frame[name]
        table.leave_out((paths != "") & ~paths.isin(files), f"no such file: {name} " + paths.map(shortened))
    again = table.frame["image_path"].duplicated()
    table.leave_out(again, "an earlier row has the same image: put what they say into one row")
    table.frame["source"] = table.frame["image_path"]
    if "mask_path" in named:
        masks = table.frame.pop("mask_path")
        table.frame["mask"] = map_once(masks, lambda path: json.dumps({"file": path}) if path else "")


def _why_not_usable(cells: pd.Series, paths: pd.Series, leaves: pd.Series, name: str, folder: Path) -> pd.Series:
    """(n,) What keeps a path from being looked up, and the way out; empty where nothing does."""
    outside = f"{name} lies outside of {folder}; name the folder of the images with --images DIR"
    # No folder helps a path that begins by climbing out of it.
    way_out = "write it as seen from a folder above both, and name that with --images DIR"
    reasons = pd.Series("", cells.index).mask(leaves, outside)
    reasons = reasons.mask(leaves & paths.str.startswith(".."), f"{name} climbs out of {folder}; {way_out}")
    foreign, remote = is_of_another_system(cells), cells.str.contains("://", regex=False)
    reasons = reasons.mask(foreign, f"{name} is an absolute path of another system; make it relative")
    return reasons.mask(remote, f"{name} is a URL; `prepare` reads files, `pretrain` takes URLs")


def _check_boxes(table: SourceTable) -> None:
    if "boxes" in table.frame:
        faults = map_once(table.frame["boxes"], lambda cell: box_fault(cell) if cell else "").astype("str")
        table.leave_out(faults != "", faults)


def _describe(table: SourceTable, name_of_dataset: str) -> None:
    """Ids with the dataset's name in front."""
    frame = table.frame
    empty = pd.Series("", index=frame.index, dtype="str")
    dataset = frame.get("dataset", empty)
    frame["dataset"] = dataset.mask(dataset == "", name_of_dataset)
    ids = frame["image_path"].str.replace(r"\.\w+$", "", regex=True)
    for name in ("study_id", "patient_id"):  # an image stands for a missing study, the study for a missing patient
        stated = canonical_ids(frame[name]) if name in frame else empty
        nameless = stated == ""
        if name == "patient_id" and nameless.any():
            table.notes.append(
                f"{int(nameless.sum())} rows without patient_id: each study counts as its own patient, each image "
                "where study_id is missing too"
            )
        ids = stated.mask(nameless, ids)
        frame[name] = ids.where(ids.str.contains(":", regex=False), frame["dataset"] + ":" + ids)


def _describe_patients(table: SourceTable) -> None:
    """View, sex, age in the manifest's words; what is none of them is noted."""
    frame = table.frame
    if "view" not in frame:
        frame["view"] = ""
    frame["view"], unknown = parse_views(frame["view"])
    if unknown:
        table.notes.append(f"unknown views, kept as OTHER: {shortened(', '.join(map(repr, unknown)))}")
    if "sex" in frame:
        stated = frame["sex"] != ""
        sexes = parse_sexes(frame["sex"])
        if unknown := sorted(set(frame.loc[stated & (sexes == ""), "sex"])):
            table.notes.append(f"sexes other than F and M, left empty: {shortened(', '.join(map(repr, unknown)))}")
        frame["sex"] = sexes
    if "age" in frame:
        stated = frame["age"] != ""
        frame["age"] = parse_ages(frame["age"])
        unread = int((stated & frame["age"].isna()).sum())
        if unread:
            table.notes.append(f"{unread} ages are not a number of years up to 120 and are left empty")


def _split(table: SourceTable, seed: int) -> None:
    """Splits as they are; where they are missing, the patient's, else drawn by patient."""
    if "split" not in table.frame:
        table.frame["split"] = ""
    cells = table.frame["split"]
    table.frame["split"] = parse_splits(cells)
    unknown = table.frame["split"].isna()
    table.leave_out(unknown, "split is " + quoted(cells) + "; train, val or test is expected")
    frame = table.frame
    open_rows = frame["split"] == ""
    if not open_rows.any():
        return
    stated = frame[~open_rows].drop_duplicates("patient_id").set_index("patient_id")["split"]
    drawn = draw_splits(frame.loc[open_rows, "patient_id"], seed, _SHARES)
    frame.loc[open_rows, "split"] = frame.loc[open_rows, "patient_id"].map(stated).fillna(drawn)
    shares = "/".join(f"{share:.0%}" for share in _SHARES.values())
    table.notes.append(f"{int(open_rows.sum())} rows without split: {shares} drawn by patient, seed {seed}")
