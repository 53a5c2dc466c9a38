"""Checks of the reports: empty, repeated, and identifiers left in them. No finding quotes a report."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from cmcgns.check.identifiers import ANY, PATTERNS
from cmcgns.check.rule import Finding, Loaded, each, positions, rule

SECTIONS = ("findings", "impression", "report")


@rule("residual-identifiers", "a date, telephone number, name after a title, record number or e-mail in a report")
@each
def residual_identifiers(loaded: Loaded) -> Iterator[Finding]:
    """Says kind, column and rows; never what stands there."""
    for column in SECTIONS:
        texts = loaded.frame[column]
        suspects = positions(texts.str.contains(ANY, regex=True))  # one pass over all, the kinds on what is left
        some = texts.iloc[suspects]
        for kind, pattern in PATTERNS.items():
            hits = positions(some.str.contains(pattern, regex=True))
            if hits:
                yield loaded.finding("warning", f"{column} seems to hold a {kind}", [suspects[hit] for hit in hits])


@rule("identifiers-in-source", "the DICOM files that `prepare` read hold a person's data (the stored images do not)")
@each
def identifiers_in_source(loaded: Loaded) -> Iterator[Finding]:
    """`prepare` keeps the names of such tags in a column of their own, never what stands in them."""
    if "identifying_tags" not in loaded.frame:
        return
    tags = loaded.frame["identifying_tags"].fillna("").astype("str")
    if rows := positions(tags != ""):
        names = sorted({name.strip() for cell in tags.unique() for name in cell.split(",") if name.strip()})
        yield loaded.finding("note", f"the source files have filled tags: {', '.join(names)}", rows)


@rule("empty-report", "no report in a data set that has reports")
@each
def empty_report(loaded: Loaded) -> Iterator[Finding]:
    """Marks of removed text ("___", "XXXX") alone are no report."""
    filled = pd.Series(False, index=loaded.frame.index)
    for column in SECTIONS:
        filled |= loaded.frame[column].str.strip(" \t\n._-X") != ""
    reported = filled.groupby(loaded.frame["dataset"]).transform("any")
    if rows := positions(reported & ~filled):
        yield loaded.finding("warning", "the report is empty, but other rows of the data set have one", rows)


@rule("repeated-report", "several studies have the same report")
@each
def repeated_report(loaded: Loaded) -> Iterator[Finding]:
    """Normal studies often share a template; in contrastive pretraining their pairs are false negatives."""
    frame = loaded.frame
    codes = np.stack([pd.factorize(frame[column])[0] for column in SECTIONS], axis=1)
    table = pd.DataFrame(codes, columns=list(SECTIONS))
    table["study"] = pd.factorize(frame["study_id"])[0]
    filled = (frame[list(SECTIONS)] != "").any(axis=1).to_numpy()
    table = table[filled]
    table["text"] = table.groupby(list(SECTIONS), sort=False).ngroup()
    studies = table.drop_duplicates(["text", "study"])["text"].value_counts()
    studies = studies[studies > 1]
    if len(studies):
        rows = table.index[table["text"].isin(studies.index)]
        message = (
            f"{len(studies):,} reports stand in more than one study, {int(studies.sum()):,} studies in all; "
            f"the most frequent in {int(studies.iloc[0]):,}"
        )
        yield loaded.finding("note", message, rows)
