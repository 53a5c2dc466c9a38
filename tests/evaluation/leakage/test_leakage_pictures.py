"""The leakage guard finds files under other names and copies of pictures, in pretraining, training and validation."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cmcgns.common.files import sha256
from cmcgns.data.images.near_duplicates import SIGNATURE
from cmcgns.evaluation.leakage import check, check_leakage, fingerprints
from support.leakage import (
    RANDOM,
    Change,
    alter,
    altered,
    counts,
    judged_row,
    leakage_of,
    rows_of,
    set_cells,
    task_data,
)


@pytest.mark.parametrize("hashed", [True, False])
def test_the_same_file_under_other_names_is_found(
    hashed: bool, judged: Path, pretraining: Path, tmp_path: Path
) -> None:
    wanted = judged_row(judged, 5)

    def without_hashes(frame: pd.DataFrame, _: Path) -> pd.DataFrame:
        return frame if hashed else frame.assign(sha256="")

    def copy(frame: pd.DataFrame, folder: Path) -> pd.DataFrame:
        shutil.copy(judged / wanted["image_path"], folder / frame["image_path"].iloc[2])
        return without_hashes(set_cells(frame, {2: {"sha256": wanted["sha256"]}}), folder)

    data = altered(pretraining, tmp_path / "data", copy)
    test = altered(judged, tmp_path / "judged", without_hashes)
    found = leakage_of(test, data, tmp_path / "run").findings
    assert [(each.kind, each.study, each.other_study, each.correlation) for each in found] == [
        ("file", wanted["study_id"], rows_of(data)["study_id"][2], None)
    ]


@pytest.mark.parametrize(
    ("name", "copy"),
    [
        ("a.jpg", lambda image: image.copy()),  # recompressed
        ("a.png", lambda image: image.resize((90, 90))),
        ("a.png", lambda image: image.resize((300, 220), Image.Resampling.BICUBIC)),  # another aspect, other padding
        ("a.png", lambda image: image.crop((2, 2, 126, 126))),
        ("a.jpg", lambda image: image.crop((1, 1, 127, 127)).resize((200, 200))),
    ],
)
@pytest.mark.parametrize("sized", [True, False])
def test_copies_of_a_picture_are_found(
    sized: bool,
    name: str,
    copy: Callable[[Image.Image], Image.Image],
    judged: Path,
    pretraining: Path,
    tmp_path: Path,
) -> None:
    wanted = judged_row(judged, 7)

    def paint(frame: pd.DataFrame, folder: Path) -> pd.DataFrame:
        with Image.open(judged / wanted["image_path"]) as image:
            made = copy(image)
        made.save(folder / name, quality=60)
        facts = {"image_path": name, "sha256": sha256(folder / name), "width": made.width, "height": made.height}
        frame = set_cells(frame, {4: facts})
        return frame if sized else frame.drop(columns=["width", "height"])

    data = altered(pretraining, tmp_path / "data", paint)
    found = leakage_of(judged, data, tmp_path / "run").findings
    assert [(each.kind, each.study, each.other_study) for each in found] == [
        ("picture", wanted["study_id"], rows_of(data)["study_id"][4])
    ]
    assert found[0].correlation is not None
    assert found[0].correlation >= 0.98


def test_blank_pictures_are_counted_and_match_nothing(judged: Path, pretraining: Path, tmp_path: Path) -> None:
    def blank(row: int) -> Change:
        def change(frame: pd.DataFrame, folder: Path) -> pd.DataFrame:
            Image.new("L", (128, 128), row).save(folder / frame["image_path"][row])
            return frame.assign(sha256="")

        return change

    test, data = altered(judged, tmp_path / "judged", blank(33)), altered(pretraining, tmp_path / "data", blank(4))
    leakage = leakage_of(test, data, tmp_path / "run")
    assert leakage.findings == []
    assert [each.kind for each in leakage.cautions] == ["pictures"]
    assert "1 of 22 pretraining pictures are not noted" in leakage.cautions[0].text


@pytest.mark.parametrize(("task", "learns"), [("linear", True), ("zero_shot", False)])
def test_test_images_in_training_or_validation_are_found_if_the_protocol_learns(
    task: str, learns: bool, judged: Path, tmp_path: Path
) -> None:
    wanted = judged_row(judged, 1)

    def repeat(frame: pd.DataFrame, folder: Path) -> pd.DataFrame:
        assert frame["split"][24] == "val"
        shutil.copy(judged / wanted["image_path"], folder / "copy.png")
        patients = {0: {"patient_id": wanted["patient_id"]}, 25: {"patient_id": "phantom:x"}}
        return set_cells(frame, {**patients, 24: {"image_path": "copy.png"}})

    data = altered(judged, tmp_path / "judged", repeat)
    found = check_leakage(task_data(data, task), RANDOM).findings
    expected = {("patient", "training"), ("picture", "validation")} if learns else set()
    assert {(each.kind, each.where) for each in found} == expected
    assert {each.patient for each in found} == ({wanted["patient_id"]} if learns else set())


def test_drawings_are_told_apart_by_ids_and_files_alone(judged: Path, tmp_path: Path) -> None:
    same = judged_row(judged, 3)

    def copied(frame: pd.DataFrame, folder: Path) -> pd.DataFrame:
        with Image.open(folder / judged_row(judged, 2)["image_path"]) as image:
            image.save(folder / "copy.jpg")
        shutil.copy(folder / same["image_path"], folder / "same.png")
        cells = {
            0: {"image_path": "copy.jpg", "sha256": ""},
            1: {"image_path": "same.png", "sha256": same["sha256"]},
        }
        return set_cells(frame, cells)

    data = altered(judged, tmp_path / "a", copied)
    assert counts(check_leakage(task_data(data), RANDOM)) == {"file": 1, "picture": 1}
    alter(data, lambda frame, _: frame.assign(dataset="phantom"))
    assert counts(check_leakage(task_data(data), RANDOM)) == {"file": 1}


def test_sizes_that_were_corrected_are_used(judged: Path, tmp_path: Path) -> None:
    def widened(frame: pd.DataFrame, folder: Path) -> pd.DataFrame:
        with Image.open(folder / judged_row(judged, 2)["image_path"]) as image:
            image.resize((200, 100)).save(folder / "wide.png")
        return set_cells(frame, {0: {"image_path": "wide.png"}})

    data = altered(judged, tmp_path / "a", widened)
    assert check_leakage(task_data(data), RANDOM, tmp_path / "cache").findings == []
    sizes: list[dict[str, Any]] = [{"width": 200, "height": 100}, {"width": None, "height": None}]
    for size in sizes:  # stated, and read from the file
        alter(data, lambda frame, _, size=size: set_cells(frame, {0: size}))
        assert counts(check_leakage(task_data(data), RANDOM, tmp_path / "cache")) == {"picture": 1}, size


def test_pictures_of_many_blocks_are_those_of_comparing_everything(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)

    def side(key: str, facts: np.ndarray[Any, Any], step: int) -> fingerprints.Fingerprints:
        names = [f"{key}{row}" for row in range(len(facts))]
        frame = pd.DataFrame(dict.fromkeys(("image_path", "study_id", "sha256"), names))
        frame = frame.assign(patient_id="", dataset="d", where="training")
        blocks = [(start, facts[start : start + step]) for start in range(0, len(facts), step)]
        return fingerprints.Fingerprints(frame, lambda: iter(blocks), key, 0)

    def signatures(count: int) -> np.ndarray[Any, Any]:
        facts = np.zeros(count, dtype=SIGNATURE)
        facts["comparable"] = True
        facts["hashes"] = generator.integers(0, 2**64, (count, 2, 4), dtype=np.uint64)
        facts["thumbnails"] = generator.integers(0, 256, (count, 2, 32, 32))
        return facts

    originals, copies = signatures(30), signatures(60)
    copies[[3, 19, 20, 47, 58]] = originals[[5, 0, 29, 5, 11]]
    test, other = side("test", originals, 7), side("other", copies, 10)
    other.frame.loc[[19, 47], "sha256"] = "other3"  # 47 is the file of row 3 again; 19 says so
    test.frame.loc[29, "sha256"] = "other20"
    test.frame.loc[11, "sha256"] = other.frame.loc[58, "sha256"] = ""  # not known: no equal hashes
    found = check.find_overlaps(test, other, tmp_path, lambda _: None)
    assert sorted((row, each.kind, each.other_study) for row, each in found) == [
        (5, "picture", "other3"),
        (11, "picture", "other58"),
        (29, "file", "other20"),
    ]
