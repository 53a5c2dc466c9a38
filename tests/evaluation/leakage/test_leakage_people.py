"""The leakage guard finds patients by their ids, wherever they were seen, and says where ids are missing."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from support.leakage import Change, altered, counts, judged_row, leakage_of, rows_of, with_cells


@pytest.mark.parametrize(("row", "where"), [(3, "pretraining"), (18, "pretraining validation")])
def test_a_patient_of_pretraining_is_found(
    row: int, where: str, judged: Path, pretraining: Path, tmp_path: Path
) -> None:
    patient = judged_row(judged)["patient_id"]
    data = altered(pretraining, tmp_path / "data", with_cells({row: {"patient_id": patient}}))
    found = leakage_of(judged, data, tmp_path / "run").findings
    frame = rows_of(judged)
    images = frame["image_path"][(frame["split"] == "test") & (frame["patient_id"] == patient)]
    assert [each.image for each in found] == images.tolist()
    assert {(each.kind, each.patient, each.where, each.other_study) for each in found} == {
        ("patient", patient, where, rows_of(data)["study_id"][row])
    }


def test_every_place_where_a_patient_was_seen_is_named(judged: Path, tmp_path: Path) -> None:
    seen = {"patient_id": judged_row(judged, 1)["patient_id"]}
    everywhere = altered(judged, tmp_path / "judged", with_cells(dict.fromkeys((0, 1, 24, 25), seen)))
    found = leakage_of(everywhere, everywhere, tmp_path / "run").findings
    places = ["pretraining", "pretraining validation", "training", "validation"]
    images = sorted({each.image for each in found})
    assert images
    assert sorted((each.image, each.where) for each in found) == [
        (image, place) for image in images for place in places
    ]


def test_empty_patient_ids_match_nothing_and_are_said(judged: Path, pretraining: Path, tmp_path: Path) -> None:
    def nameless(frame: pd.DataFrame, _: Path) -> pd.DataFrame:
        return frame.assign(patient_id="")

    test = altered(judged, tmp_path / "judged", nameless)
    data = altered(pretraining, tmp_path / "data", nameless)
    leakage = leakage_of(test, data, tmp_path / "run")
    assert leakage.findings == []
    assert "12 of 12 test images name no patient" in {each.text for each in leakage.cautions if each.kind == "ids"}


@pytest.mark.parametrize(
    ("dataset", "ids", "found"),
    [
        ("theirs", "{}", 0),  # `17` of one dataset is not `17` of another,
        ("mine", "mine:{}", 12),  # and with the name it is the same as without
        ("theirs", "mine:{}", 12),  # `mine:17` of a table of another name is what it says
    ],
)
def test_ids_are_compared_with_their_datasets_names(
    dataset: str, ids: str, found: int, judged: Path, pretraining: Path, tmp_path: Path
) -> None:
    def numbered(name: str, ids: str, first: int = 0) -> Change:
        return lambda frame, _: frame.assign(
            patient_id=[ids.format(first + row) for row in range(len(frame))], dataset=name
        )

    test = altered(judged, tmp_path / "judged", numbered("mine", "{}"))
    data = altered(pretraining, tmp_path / "data", numbered(dataset, ids, first=32))
    assert counts(leakage_of(test, data, tmp_path / "run", "zero_shot")) == ({"patient": found} if found else {})


def test_patients_of_covidx_that_are_images_of_rsna_are_found(
    judged: Path, pretraining: Path, tmp_path: Path
) -> None:
    def images_as_patients(frame: pd.DataFrame, _: Path) -> pd.DataFrame:
        return frame.assign(dataset="covidx", patient_id=[f"rsna:i{row}" for row in range(len(frame))])

    def images_as_studies(frame: pd.DataFrame, _: Path) -> pd.DataFrame:
        studies = [f"rsna:i{row + 40}" for row in range(len(frame))]
        return frame.assign(dataset="rsna", patient_id="nih:1", study_id=studies)

    test = altered(judged, tmp_path / "judged", images_as_patients)
    data = altered(pretraining, tmp_path / "data", images_as_studies)
    found = leakage_of(test, data, tmp_path / "run").findings
    assert {(each.kind, each.patient, each.other_study) for each in found} == {
        ("patient", f"rsna:i{row}", f"rsna:i{row}") for row in range(40, 44)
    }


@pytest.mark.parametrize("spelling", [float, "{}.0".format, " {} ".format])
def test_a_patient_whose_number_became_a_float_is_the_same_patient(
    spelling: Callable[[int], object], judged: Path, pretraining: Path, tmp_path: Path
) -> None:
    """One gap makes a column of whole numbers one of floats."""
    test = altered(judged, tmp_path / "judged", lambda frame, _: frame.assign(patient_id=_numbers(frame, str)))
    data = shutil.copytree(pretraining, tmp_path / "data")
    frame = rows_of(data).iloc[:12].assign(split="train", dataset="drawn")
    patients = pd.Series([spelling(32 + row) for row in range(11)] + [None])
    frame.assign(patient_id=patients).to_parquet(data / "manifest.parquet")
    assert counts(leakage_of(test, data, tmp_path / "run", "zero_shot")) == {"patient": 11}


def test_patients_spelt_almost_alike_are_said_and_not_merged(judged: Path, pretraining: Path, tmp_path: Path) -> None:
    test = altered(judged, tmp_path / "judged", lambda frame, _: frame.assign(patient_id=_numbers(frame, str)))
    data = altered(
        pretraining, tmp_path / "data", lambda frame, _: frame.assign(patient_id=_numbers(frame, "{:07d}".format, 32))
    )
    leakage = leakage_of(test, data, tmp_path / "run", "zero_shot")
    assert leakage.findings == []
    (caution,) = [each for each in leakage.cautions if "leading zeros" in each.text]
    assert caution.kind == "ids"
    assert caution.text.startswith("12 test patients have ids that differ from pretraining ones")
    assert "(first: 'drawn:32' and 'drawn:0000032')" in caution.text


def _numbers(frame: pd.DataFrame, spelling: Callable[[int], object], first: int = 0) -> list[object]:
    return [spelling(first + row) for row in range(len(frame))]
