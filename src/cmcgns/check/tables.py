"""Checks of the manifest's columns: ids, splits, labels, views, files that are the same."""

from collections.abc import Iterator, Sequence

import pandas as pd

from cmcgns.check.rule import (
    MOST_GROUPS,
    Finding,
    Loaded,
    behind_first_row,
    behind_first_split,
    each,
    group_findings,
    in_several_splits,
    positions,
    rule,
    spread_text,
    stack,
)
from cmcgns.data.ids import twin_keys
from cmcgns.data.manifest import SPLITS, label_columns
from cmcgns.data.vocabulary import VIEWS

_FRONTAL_SHARE = 0.95  # above it the other views are taken for strays


@rule("missing-ids", "image_path, study_id, patient_id or dataset is empty")
@each
def missing_ids(loaded: Loaded) -> Iterator[Finding]:
    """Rows that nothing can be joined or grouped by."""
    for column in ("image_path", "study_id", "patient_id", "dataset"):
        if rows := positions(loaded.frame[column] == ""):
            yield loaded.finding("error", f"{column} is empty", rows)


@rule("ids-without-dataset", "study_id or patient_id does not begin with a data set's name and a colon")
@each
def ids_without_dataset(loaded: Loaded) -> Iterator[Finding]:
    """Ids that may be equal in two data sets by chance. A patient may bear another data set's name (kinship)."""
    frame = loaded.frame
    for column in ("study_id", "patient_id"):
        bare = (frame[column] != "") & ~frame[column].str.contains("^[^:]+:.", regex=True)
        if rows := positions(bare):
            yield loaded.finding("warning", f"{column} has no data set's name before a colon", rows)
    named = frame["study_id"].str.contains(":", regex=False)
    foreign = named & (frame["study_id"].str.split(":", n=1).str[0] != frame["dataset"])
    if rows := positions(foreign):
        yield loaded.finding("warning", "study_id begins with the name of another data set than the row's", rows)


@rule("repeated-images", "an image stands in several rows of a manifest")
@each
def repeated_images(loaded: Loaded) -> Iterator[Finding]:
    """The same image_path twice; the row of test, else val, else the first is kept."""
    table = stack([loaded], "image_path")
    table = table[table.duplicated("key", keep=False)]
    yield from group_findings(
        [loaded],
        table.assign(drop=behind_first_row(table)),
        "error",
        lambda rows: f"image {rows['name'].iloc[0]} stands in {len(rows)} rows",
        "images that stand in several rows",
    )


@rule("studies-of-several-patients", "a study_id belongs to more than one patient")
@each
def studies_of_several_patients(loaded: Loaded) -> Iterator[Finding]:
    """Ids that are repeated by mistake; nobody but the user can say which row is right."""
    table = stack([loaded], "study_id")
    table["patient"] = pd.factorize(loaded.frame["patient_id"])[0][table["row"].to_numpy()]
    patients = table.groupby("key")["patient"]
    table = table[(patients.transform("min") != patients.transform("max"))]
    yield from group_findings(
        [loaded],
        table.assign(drop=True),
        "error",
        lambda rows: f"study {rows['name'].iloc[0]} belongs to {rows['patient'].nunique()} patients",
        "studies of several patients",
    )


@rule("studies-in-several-manifests", "a study_id is in more than one of the manifests")
def studies_in_several_manifests(manifests: Sequence[Loaded]) -> Iterator[Finding]:
    """The same study prepared twice, or two data sets under one name."""
    if len(manifests) < 2:
        return
    table = stack(manifests, "study_id")
    source = table.groupby("key")["manifest"]
    table = table[source.transform("min") != source.transform("max")]
    for number, rows in table.groupby("manifest"):
        others = ", ".join(str(manifests[int(other)].file) for other in table["manifest"].unique() if other != number)
        message = f"{rows['key'].nunique():,} studies are also in {others}"
        yield manifests[int(str(number))].finding("warning", message, rows["row"])


@rule("patients-across-splits", "a patient is in more than one of train, val and test")
def patients_across_splits(manifests: Sequence[Loaded]) -> Iterator[Finding]:
    """Within and across manifests; `fix` keeps the rows of test, else of val."""
    table = stack(manifests, "patient_id")
    table = table[in_several_splits(table)]
    yield from group_findings(
        manifests,
        table.assign(drop=behind_first_split(table)),
        "error",
        lambda rows: f"patient {rows['name'].iloc[0]} is in {spread_text(rows, manifests)}",
        "patients in several splits",
    )


@rule("likely-twin-patients", "patient_ids that differ only in leading zeros, case or blanks")
def likely_twin_patients(manifests: Sequence[Loaded]) -> Iterator[Finding]:
    """One patient under two spellings, within and across manifests; nobody but the user can say so."""
    table = stack(manifests, "patient_id")
    table["key"] = pd.factorize(twin_keys(table["name"]))[0]
    spellings = table.drop_duplicates("name")
    table = table[table["key"].isin(spellings["key"][spellings["key"].duplicated()])]
    yield from group_findings(
        manifests,
        table.assign(drop=False),
        "warning",
        lambda rows: f"{' and '.join(map(repr, rows['name'].unique()[:3]))} may be one patient",
        "patients in several spellings",
    )


@rule("same-file-across-splits", "the same source file is in more than one of train, val and test")
def same_file_across_splits(manifests: Sequence[Loaded]) -> Iterator[Finding]:
    """By sha256, within and across manifests; `fix` keeps the rows of test, else of val."""
    table = stack(manifests, "sha256")
    table = table[in_several_splits(table)]
    yield from group_findings(
        manifests,
        table.assign(drop=behind_first_split(table)),
        "error",
        lambda rows: f"the file with sha256 {rows['name'].iloc[0][:12]}… is in {spread_text(rows, manifests)}",
        "files in several splits",
    )


@rule("same-file", "the same source file is in several rows of one split")
def same_file(manifests: Sequence[Loaded]) -> Iterator[Finding]:
    """By sha256, within and across manifests; `fix` keeps the first row."""
    table = stack(manifests, "sha256")
    table = table.assign(key=table["key"] * 4 + table["rank"])
    table = table[table.duplicated("key", keep=False)]
    yield from group_findings(
        manifests,
        table.assign(drop=behind_first_row(table)),
        "warning",
        lambda rows: f"the file with sha256 {rows['name'].iloc[0][:12]}… is in {spread_text(rows, manifests)}",
        "files in several rows",
    )


@rule("unknown-split", f"split is none of {', '.join(SPLITS[:-1])} and not empty")
@each
def unknown_split(loaded: Loaded) -> Iterator[Finding]:
    """Rows that no part of the program would use."""
    yield from _unknown_values(loaded, "split", SPLITS)


@rule("unknown-view", f"view is none of {', '.join(VIEWS[:-1])} and not empty")
@each
def unknown_view(loaded: Loaded) -> Iterator[Finding]:
    """Spellings that a choice of views would miss."""
    yield from _unknown_values(loaded, "view", VIEWS)


def _unknown_values(loaded: Loaded, column: str, known: Sequence[str]) -> Iterator[Finding]:
    values = loaded.frame[column]
    wrong = values[~values.isin(known)]
    for value in wrong.unique()[:MOST_GROUPS]:
        message = f"{column} {str(value)[:40]!r} is none of {', '.join(known[:-1])} and not empty"
        yield loaded.finding("error", message, positions(values == value))
    rest = positions(values.isin(wrong.unique()[MOST_GROUPS:]))
    if rest:
        yield loaded.finding("error", f"other values of {column} that are not known", rest)


@rule("lateral-among-frontal", "a few lateral or other views in a data set that is frontal otherwise")
@each
def lateral_among_frontal(loaded: Loaded) -> Iterator[Finding]:
    """Strays; a set with many laterals has them on purpose."""
    frame = loaded.frame
    frontal = frame["view"].isin(["AP", "PA", "FRONTAL"])
    lateral = frame["view"].isin(["LATERAL", "OTHER"])
    for name in frame["dataset"].unique():
        here = frame["dataset"] == name
        stray = positions(here & lateral)
        if 0 < len(stray) <= (1 - _FRONTAL_SHARE) * (len(stray) + int((here & frontal).sum())):
            yield loaded.finding("note", f"lateral or other views in {name}, whose other images are frontal", stray)


@rule("unknown-label-value", "a label is none of 1, 0, -1 and not missing")
@each
def unknown_label_value(loaded: Loaded) -> Iterator[Finding]:
    """One finding per column and value."""
    for column in label_columns(loaded.frame):
        values = loaded.frame[column]
        wrong = values.notna() & ~values.isin([1, 0, -1])
        for value in sorted(values[wrong].unique()):
            message = f"{column} is {value}; a label is 1, 0, -1 (uncertain) or missing"
            yield loaded.finding("error", message, positions(values == value))
