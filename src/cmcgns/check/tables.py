"""Rules about a manifest's columns: ids, splits, views, labels, and rows that share a key."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd

from cmcgns.check.rule import Finding, Loaded, Severity, joint_rule, rule
from cmcgns.data.manifest import SPLITS, label_columns
from cmcgns.data.vocabulary import VIEWS, twin_keys

MOST_GROUPS = 1_000  # findings of one rule that are spelled out; the others share one finding
_FRONTAL_SHARE = 0.95  # above it the other views are taken for strays
_RANKS = {"test": 0, "val": 1, "train": 2}  # kept first: a test set is the costliest to shrink
_NO_SPLIT = 3


@rule("missing-ids", "image_path, study_id, patient_id or dataset is empty")
def missing_ids(loaded: Loaded) -> Iterator[Finding]:
    """Rows that nothing can be joined or grouped by."""
    for column in ("image_path", "study_id", "patient_id", "dataset"):
        yield loaded.finding("error", f"{column} is empty", loaded.frame[column] == "")


@rule("ids-without-dataset", "study_id or patient_id does not begin with a data set's name and a colon")
def ids_without_dataset(loaded: Loaded) -> Iterator[Finding]:
    """Ids that may be equal in two data sets by chance. A patient may bear another data set's name (kinship)."""
    frame = loaded.frame
    for column in ("study_id", "patient_id"):
        bare = (frame[column] != "") & ~frame[column].str.contains("^[^:]+:.", regex=True)
        yield loaded.finding("warning", f"{column} has no data set's name before a colon", bare)
    named = frame["study_id"].str.contains(":", regex=False)
    foreign = named & (frame["study_id"].str.split(":", n=1).str[0] != frame["dataset"])
    yield loaded.finding("warning", "study_id begins with the name of another data set than the row's", foreign)


@rule("repeated-images", "an image stands in several rows of a manifest")
def repeated_images(loaded: Loaded) -> Iterator[Finding]:
    """The same image_path twice; the row of test, else val, else the first is kept."""
    return group_findings(
        [loaded],
        _repeated(stack([loaded], "image_path")),
        "error",
        lambda rows: f"image {rows['name'].iloc[0]} stands in {len(rows)} rows",
        "images that stand in several rows",
    )


@rule("studies-of-several-patients", "a study_id belongs to more than one patient")
def studies_of_several_patients(loaded: Loaded) -> Iterator[Finding]:
    """Ids that are repeated by mistake; nobody but the user can say which row is right."""
    table = stack([loaded], "study_id")
    table["patient"] = pd.factorize(loaded.frame["patient_id"])[0][table["row"].to_numpy()]
    return group_findings(
        [loaded],
        _spread(table, "patient").assign(drop=True),
        "error",
        lambda rows: f"study {rows['name'].iloc[0]} belongs to {rows['patient'].nunique()} patients",
        "studies of several patients",
    )


@joint_rule("studies-in-several-manifests", "a study_id is in more than one of the manifests")
def studies_in_several_manifests(manifests: Sequence[Loaded]) -> Iterator[Finding]:
    """The same study prepared twice, or two data sets under one name."""
    if len(manifests) < 2:
        return
    table = _spread(stack(manifests, "study_id"), "manifest")
    for number, rows in table.groupby("manifest"):
        shared = table["key"].isin(rows["key"]) & (table["manifest"] != number)
        others = ", ".join(str(manifests[other].file) for other in table.loc[shared, "manifest"].unique())
        message = f"{rows['key'].nunique():,} studies are also in {others}"
        yield manifests[rows["manifest"].iloc[0]].finding("warning", message, rows["row"])


@joint_rule("patients-across-splits", "a patient is in more than one of train, val and test")
def patients_across_splits(manifests: Sequence[Loaded]) -> Iterator[Finding]:
    """Within and across manifests; `fix` keeps the rows of test, else of val."""
    return group_findings(
        manifests,
        across_splits(stack(manifests, "patient_id")),
        "error",
        lambda rows: f"patient {rows['name'].iloc[0]} is in {places(rows, manifests)}",
        "patients in several splits",
    )


@joint_rule("likely-twin-patients", "patient_ids that differ only in leading zeros, case or blanks")
def likely_twin_patients(manifests: Sequence[Loaded]) -> Iterator[Finding]:
    """One patient under two spellings, within and across manifests; nobody but the user can say so."""
    table = stack(manifests, "patient_id")
    table["spelling"] = table["key"]
    table["key"] = pd.factorize(twin_keys(table["name"]))[0]
    return group_findings(
        manifests,
        _spread(table, "spelling").assign(drop=False),
        "warning",
        lambda rows: f"{' and '.join(map(repr, rows['name'].unique()[:3]))} may be one patient",
        "patients in several spellings",
    )


@joint_rule("same-file-across-splits", "the same source file is in more than one of train, val and test")
def same_file_across_splits(manifests: Sequence[Loaded]) -> Iterator[Finding]:
    """By sha256, within and across manifests; `fix` keeps the rows of test, else of val."""
    table = across_splits(stack(manifests, "sha256"))
    return _file_findings(manifests, table, "error", "files in several splits")


@joint_rule("same-file", "the same source file is in several rows of one split")
def same_file(manifests: Sequence[Loaded]) -> Iterator[Finding]:
    """By sha256, within and across manifests; `fix` keeps the first row."""
    table = stack(manifests, "sha256")
    table = _repeated(table.assign(key=table["key"] * (_NO_SPLIT + 1) + table["rank"]))
    return _file_findings(manifests, table, "warning", "files in several rows")


def _file_findings(
    manifests: Sequence[Loaded], table: pd.DataFrame, severity: Severity, many: str
) -> Iterator[Finding]:
    def describe(rows: pd.DataFrame) -> str:
        return f"the file with sha256 {rows['name'].iloc[0][:12]}… is in {places(rows, manifests)}"

    return group_findings(manifests, table, severity, describe, many)


@rule("unknown-split", f"split is none of {', '.join(SPLITS[:-1])} and not empty")
def unknown_split(loaded: Loaded) -> Iterator[Finding]:
    """Rows that no part of the program would use."""
    return _unknown_values(loaded, "split", SPLITS)


@rule("unknown-view", f"view is none of {', '.join(VIEWS[:-1])} and not empty")
def unknown_view(loaded: Loaded) -> Iterator[Finding]:
    """Spellings that a choice of views would miss."""
    return _unknown_values(loaded, "view", VIEWS)


def _unknown_values(loaded: Loaded, column: str, known: Sequence[str]) -> Iterator[Finding]:
    values = loaded.frame[column]
    wrong = values[~values.isin(known)].unique()
    for value in wrong[:MOST_GROUPS]:
        message = f"{column} {str(value)[:40]!r} is none of {', '.join(known[:-1])} and not empty"
        yield loaded.finding("error", message, values == value)
    yield loaded.finding("error", f"other values of {column} that are not known", values.isin(wrong[MOST_GROUPS:]))


@rule("lateral-among-frontal", "a few lateral or other views in a data set that is frontal otherwise")
def lateral_among_frontal(loaded: Loaded) -> Iterator[Finding]:
    """Strays; a set with many laterals has them on purpose."""
    frame = loaded.frame
    frontal = frame["view"].isin(["AP", "PA", "FRONTAL"])
    lateral = frame["view"].isin(["LATERAL", "OTHER"])
    for name in frame["dataset"].unique():
        here = frame["dataset"] == name
        strays = int((here & lateral).sum())
        if strays <= (1 - _FRONTAL_SHARE) * (strays + int((here & frontal).sum())):
            message = f"lateral or other views in {name}, whose other images are frontal"
            yield loaded.finding("note", message, here & lateral)


@rule("unknown-label-value", "a label is none of 1, 0, -1 and not missing")
def unknown_label_value(loaded: Loaded) -> Iterator[Finding]:
    """One finding per column and value."""
    for column in label_columns(loaded.frame):
        values = loaded.frame[column]
        for value in sorted(values[values.notna() & ~values.isin([1, 0, -1])].unique()):
            message = f"{column} is {value}; a label is 1, 0, -1 (uncertain) or missing"
            yield loaded.finding("error", message, values == value)


def group_findings(
    manifests: Sequence[Loaded],
    table: pd.DataFrame,
    severity: Severity,
    describe: Callable[[pd.DataFrame], str],
    many: str,
) -> Iterator[Finding]:
    """A finding per key and manifest; of very many keys the last ones share a finding.

    Args:
        manifests: all of them.
        table: rows at fault: `key`, `manifest` (its number), `row` and `drop`, and what `describe` needs.
        severity: of all findings.
        describe: the message about the rows of one key.
        many: what the keys are, for the shared finding ("patients in several splits").
    """
    groups = np.minimum(pd.factorize(table["key"])[0], MOST_GROUPS)
    for group, (_, rows) in enumerate(table.groupby(groups)):
        for _, part in rows.groupby("manifest"):
            message = describe(rows) if group != MOST_GROUPS else f"{part['key'].nunique():,} more {many}"
            loaded = manifests[part["manifest"].iloc[0]]
            yield loaded.finding(severity, message, part["row"], part["row"][part["drop"]])


def stack(manifests: Sequence[Loaded], column: str) -> pd.DataFrame:
    """One row per manifest row with a non-empty key.

    `name` is the cell, `key` its code, `rank` 0 in test, 1 in val, 2 in train and 3 elsewhere. The index counts the
    rows of all manifests.
    """
    frames = {number: loaded.frame[[column, "split"]] for number, loaded in enumerate(manifests)}
    table = pd.concat(frames, names=["manifest", "row"]).reset_index().rename(columns={column: "name"})
    table = table.assign(rank=table["split"].map(_RANKS).fillna(_NO_SPLIT).astype(np.int8))[table["name"] != ""]
    return table.assign(key=pd.factorize(table["name"])[0])


def _spread(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Rows of the keys that have several values in a column."""
    values = table.groupby("key")[column]
    return table[values.transform("min") != values.transform("max")]


def across_splits(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of keys in more than one of test, val and train; `drop` is true but in the first of these.

    The key's rows without a split do not count.
    """
    table = _spread(table[table["rank"] < _NO_SPLIT], "rank")
    return table.assign(drop=table["rank"] > table.groupby("key")["rank"].transform("min"))


def _repeated(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of keys with several rows; `drop` is true of all but the first, by split and then by place."""
    table = table[table.duplicated("key", keep=False)]
    return table.assign(drop=by_preference(table).duplicated("key"))


def by_preference(table: pd.DataFrame) -> pd.DataFrame:
    """The same rows, first those that are kept rather: by split, then by place."""
    return table.sort_values(["rank", "manifest", "row"], kind="stable")


def places(rows: pd.DataFrame, manifests: Sequence[Loaded]) -> str:
    """Where the rows of one key are: "train (3 rows) and test (1 row)", with manifests where there are several."""
    several = rows["manifest"].nunique() > 1
    parts = []
    for _, part in rows.groupby(["manifest", "split"]):
        file = f"{manifests[part['manifest'].iloc[0]].file}, " if several else ""
        split = part["split"].iloc[0] or "no split"
        parts.append(f"{split} ({file}{len(part):,} row{'s' if len(part) != 1 else ''})")
    return " and ".join(parts)
