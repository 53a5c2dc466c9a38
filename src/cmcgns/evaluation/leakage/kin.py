"""Datasets that share images under ids that cannot be compared, and ids that are not there."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from cmcgns.evaluation.leakage.compare import with_dataset
from cmcgns.evaluation.leakage.found import Caution

# RSNA's and SIIM's images come from NIH ChestX-ray14, a part of COVIDx from RSNA.
_FROM_NIH = ("nih", "rsna", "siim", "covidx")
# Collected at one place each; whatever else there is may hold public cases, as COVIDx does.
_OF_THEIR_OWN = ("mimic-cxr", "openi", "chexpert", "object-cxr", "vindr", "phantom")


def cautions_about_ids(test: pd.DataFrame, other: pd.DataFrame, name: str) -> Iterator[Caution]:
    """What comparing ids cannot show.

    Args:
        test: rows with patient_id, study_id, dataset.
        other: the same of the other side.
        name: of the other side.
    """
    sides = _prefixes(test), _prefixes(other)
    for one in sorted(sides[0]):
        for another in sorted(sides[1]):
            if _share_images(one, another) and not _comparable(one, another, sides[0][one], sides[1][another]):
                yield Caution("kin", _kin_text(one, another, name))
    for frame, side in ((test, "test"), (other, name)):
        missing = int((frame["patient_id"] == "").sum())
        if missing:
            yield Caution("ids", f"{missing:,} of {len(frame):,} {side} images name no patient")
    bare = (
        ~other["patient_id"].str.contains(":", regex=False) & (other["dataset"] == "") & (other["patient_id"] != "")
    )
    if bare.any():
        yield Caution(
            "ids",
            f"{int(bare.sum()):,} {name} images have patient ids without a dataset's name (first: "
            f"{other['patient_id'][bare].iloc[0]}), which match no prepared dataset's: fill the column `dataset`",
        )


def _prefixes(frame: pd.DataFrame) -> dict[str, set[str]]:
    """By dataset the names that its patients' ids begin with."""
    ids = with_dataset(frame["patient_id"], frame["dataset"])
    prefix = ids.str.partition(":")[0].where(ids.str.contains(":", regex=False), "")
    dataset = frame["dataset"].mask(frame["dataset"] == "", prefix)
    pairs = pd.DataFrame({"dataset": dataset, "prefix": prefix}).drop_duplicates()
    return {str(name): set(rows["prefix"]) for name, rows in pairs.groupby("dataset") if name}


def _share_images(one: str, another: str) -> bool:
    if one in _FROM_NIH and another in _FROM_NIH:
        return True
    rest = {one, another} - {"covidx"}
    return "covidx" in (one, another) and not rest & {*_OF_THEIR_OWN}


def _comparable(one: str, another: str, mine: set[str], theirs: set[str]) -> bool:
    """Whether both name the same kind of patients."""
    return mine == theirs if one == another else mine == theirs == {"nih"}


def _kin_text(one: str, another: str, name: str) -> str:
    why = (
        "hold images of NIH ChestX-ray14"
        if one in _FROM_NIH and another in _FROM_NIH
        else "may hold the same public cases"
    )
    mapping = "; with RSNA's mapping `cmcgns prepare rsna` names NIH's patients" if "rsna" in (one, another) else ""
    whose = f"{one} (test) and {another} ({name}) both" if one != another else f"{one}, in test and in {name},"
    return f"{whose} {why}, but their ids cannot be compared: only files and pictures were{mapping}"
