"""Datasets that hold each other's images: what ids cannot show is said, and pictures show it all the same."""

import io
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from cmcgns.phantom.trees import write_tree
from cmcgns.prepare.run import PrepareOptions, prepare
from support.leakage import Change, altered, counts, leakage_of

SHARED = [
    ("rsna", "rsna:a", "nih", "nih:7", "ids cannot be compared"),
    ("rsna", "nih:8", "nih", "nih:7", ""),
    ("rsna", "rsna:a", "rsna", "nih:7", "ids cannot be compared"),
    ("siim", "siim:a", "nih", "nih:7", "hold images of NIH ChestX-ray14"),
    ("nih", "nih:7", "siim", "siim:a", "hold images of NIH ChestX-ray14"),
    ("siim", "siim:a", "siim", "siim:b", ""),
    ("covidx", "covidx:cohen/1", "rsna", "nih:7", "hold images of NIH ChestX-ray14"),
    ("covidx", "covidx:cohen/1", "cases", "cases:7", "may hold the same public cases"),
    ("covidx", "covidx:cohen/1", "mimic-cxr", "mimic-cxr:7", ""),
    ("chexpert", "chexpert:7", "mimic-cxr", "mimic-cxr:7", ""),
    ("cases", "cases:7", "others", "others:7", ""),
]


@pytest.mark.parametrize(("dataset", "patient", "other", "other_patient", "text"), SHARED)
def test_datasets_with_shared_images_but_without_comparable_ids_are_said(
    dataset: str, patient: str, other: str, other_patient: str, text: str,
    judged: Path, pretraining: Path, tmp_path: Path,
) -> None:  # fmt: skip
    def renamed(name: str, patient: str) -> Change:
        return lambda frame, _: frame.assign(
            dataset=name,
            patient_id=[f"{patient}{row}" for row in range(len(frame))],
            study_id=[f"{name}:{patient}-{row}" for row in range(len(frame))],
        )

    test = altered(judged, tmp_path / "judged", renamed(dataset, patient + "0"))
    data = altered(pretraining, tmp_path / "data", renamed(other, other_patient + "9"))
    leakage = leakage_of(test, data, tmp_path / "run")
    said = [each.text for each in leakage.cautions if each.kind == "datasets"]
    assert leakage.findings == []
    assert len(said) == bool(text)
    assert all(text in each for each in said)


def told(frame: pd.DataFrame, _: object) -> pd.DataFrame:
    """A report for every row, all in training."""
    return frame.assign(findings=[f"Study {number}." for number in range(len(frame))], split="train")


@pytest.mark.parametrize(("name", "kinds"), [("rsna", {"patient", "picture"}), ("siim", {"picture"})])
def test_chests_of_nih_are_found_in_the_datasets_made_of_it(name: str, kinds: set[str], tmp_path: Path) -> None:
    """DICOM there, PNG here; RSNA's mapping gives the patients, SIIM has none."""
    options, console = PrepareOptions(size=96), Console(file=io.StringIO())
    for each in ("nih", name):
        prepare(each, write_tree(each, tmp_path / f"{each}-tree", 24, size=96), tmp_path / each, options, console)
    everyone = altered(tmp_path / "nih", tmp_path / "data", told)
    leakage = leakage_of(tmp_path / name, everyone, tmp_path / "run")
    assert counts(leakage) == dict.fromkeys(sorted(kinds), leakage.images)
    assert leakage.images > 2
    assert any(each.kind == "datasets" for each in leakage.cautions) == (name == "siim")
