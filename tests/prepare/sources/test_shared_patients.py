"""What a note says of patients in several splits was looked up in the rows, whatever the files are called."""

import gzip
from collections import defaultdict
from pathlib import Path

import pandas as pd
import pytest

from cmcgns.phantom.trees import tree_names, write_tree
from cmcgns.prepare.sources.cells import describe_shared_patients
from support.trees import read_source

NONE = "patients: none is in two splits (looked up in all rows)"


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("trees")
    for name in tree_names():
        write_tree(name, folder / name, 24, size=32)
    return {name: folder / name for name in tree_names()}


def notes_on_patients(frame: pd.DataFrame) -> list[str]:
    """Counted by hand, row by row."""
    splits: dict[str, set[str]] = defaultdict(set)
    for patient, split in zip(frame["patient_id"], frame["split"], strict=True):
        splits[patient] |= {split} - {""}
    if frame["patient_id"].equals(frame["study_id"]) or len(set().union(*splits.values())) < 2:
        return []
    shared = [patient for patient, names in splits.items() if len(names) > 1]
    return [f"patients: {len(shared)} are in more than one split"] if shared else [NONE]


@pytest.mark.parametrize("name", tree_names())
@pytest.mark.parametrize("split", ["v1", "legacy"])
def test_every_reader_says_what_its_rows_hold(trees: dict[str, Path], name: str, split: str) -> None:
    table = read_source(name, trees[name], split=split)
    said = [note.partition(", for example")[0] for note in table.notes if note.startswith("patients: ")]
    assert said == notes_on_patients(table.frame)
    assert split == "legacy" or said in ([NONE], []), "v1 is by patient"


def test_an_official_split_that_divides_patients_is_said_to(trees: dict[str, Path]) -> None:
    """MIMIC-CXR with its split by study: patients of two studies end in two splits."""
    (file,) = trees["mimic-cxr"].glob("*split.csv*")
    whole = file.read_bytes()
    assert any(NONE in note for note in read_source("mimic-cxr", trees["mimic-cxr"]).notes)
    rows = pd.read_csv(file, dtype=str)
    rows["split"] = ["train" if int(study) % 2 else "test" for study in rows["study_id"]]
    file.write_bytes(gzip.compress(rows.to_csv(index=False).encode()))
    table = read_source("mimic-cxr", trees["mimic-cxr"])
    file.write_bytes(whole)
    (said,) = [note for note in table.notes if note.startswith("patients: ")]
    shared = table.frame.groupby("patient_id")["split"].agg(lambda splits: len(set(splits)) > 1)
    assert shared.sum() > 0
    assert f"{shared.sum()} are in more than one split, for example mimic-cxr:p" in said


def test_rows_without_a_split_do_not_count() -> None:
    frame = pd.DataFrame({"patient_id": ["a", "a", "b"], "study_id": ["1", "2", "3"], "split": ["train", "", "test"]})
    assert describe_shared_patients(frame) == NONE
    assert describe_shared_patients(frame.assign(split="train")) == ""
    assert "1 are in more than one split, for example a;" in describe_shared_patients(
        frame.assign(split=["train", "val", ""])
    )
