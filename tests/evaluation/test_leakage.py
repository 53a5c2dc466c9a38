"""The leakage guard: everything that was seen is found, nothing else is."""

import csv
import io
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from cmcgns.check.squares import SIGNATURE, without_padding
from cmcgns.data.images import read_image
from cmcgns.data.manifest import write_manifest
from cmcgns.data.phantom.dataset import write_dataset
from cmcgns.data.phantom.trees import write_tree
from cmcgns.errors import UserError
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.leakage import Leakage, Overlap, check_leakage, compare, refuse, sides
from cmcgns.evaluation.protocols import EvaluationProtocol, SplitSettings
from cmcgns.evaluation.task_data import TaskData
from cmcgns.files import sha256
from cmcgns.prepare.run import PrepareOptions, prepare
from cmcgns.recipe import parse_recipe
from cmcgns.training.prepare import prepare_data
from cmcgns.training.run_folder import RunFolder
from cmcgns.training.seen import write_seen

Change = Callable[[pd.DataFrame, Path], pd.DataFrame]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CMCGNS_CACHE", str(folder))
        yield folder


def drawn(folder: Path, counts: dict[str, int], seed: int, size: int) -> Path:
    """Synthetic studies under another name: pictures of two rows of `phantom` are not compared."""
    frame = pd.read_parquet(write_dataset(folder, counts, seed=seed, size=size))
    write_manifest(frame.assign(dataset="drawn"), folder / "manifest.parquet")
    return folder


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset that encoders are judged on."""
    folder = tmp_path_factory.mktemp("judged")
    return drawn(folder, {"train": 24, "val": 8, "test": 12}, seed=1, size=128)


@pytest.fixture(scope="module")
def pretraining(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other studies, to pretrain on."""
    folder = tmp_path_factory.mktemp("pretraining")
    return drawn(folder, {"train": 16, "val": 6}, seed=2, size=128)


def altered(source: Path, out: Path, change: Change) -> Path:
    """A copy of a dataset with something done to it."""
    shutil.copytree(source, out)
    frame = pd.read_parquet(out / "manifest.parquet")
    write_manifest(change(frame, out), out / "manifest.parquet")
    return out


def values(column: str, rows: dict[int, Any]) -> Change:
    def change(frame: pd.DataFrame, _: Path) -> pd.DataFrame:
        cells = frame[column].tolist()
        for row, value in rows.items():
            cells[row] = value
        return frame.assign(**{column: cells})

    return change


def task_data(folder: Path, task: Any = "linear", **split: Any) -> TaskData:
    protocol = EvaluationProtocol(
        id=f"{task.replace('_', '-')}/v1",
        title="",
        task=task,
        split=SplitSettings.model_validate({"rule": "any", **split}),
    )
    return TaskData(protocol, folder, 64, 72)


def run_on(data: Path, out: Path, init: Path | None = None) -> FrozenEncoder:
    """What stands for an encoder whose run saw that data; nothing is trained."""
    settings = {
        "data": {"image_size": 64, "resize": 72},
        "report_encoder": {"vocabulary": 300},
        "training": {"seed": 1},
    }
    recipe = parse_recipe(settings, "tiny")
    out.mkdir(parents=True)
    write_seen(RunFolder(out), prepare_data(recipe, data), recipe, init)
    return encoder_of(out)


def encoder_of(run: Path | None, name: str = "run") -> FrozenEncoder:
    pretrained = SimpleNamespace(folder=run) if run is not None else None
    return cast(FrozenEncoder, SimpleNamespace(name=name, pretrained=pretrained))


def judged_row(folder: Path, number: int = 0) -> pd.Series:
    frame = pd.read_parquet(folder / "manifest.parquet")
    return frame[frame["split"] == "test"].iloc[number]


def test_nothing_is_found_among_different_studies(judged: Path, pretraining: Path, tmp_path: Path) -> None:
    leakage = check_leakage(task_data(judged), run_on(pretraining, tmp_path / "run"))
    assert leakage.findings == []
    assert leakage.cautions == []
    assert (leakage.text, leakage.counts(), leakage.images) == ("", {}, 12)
    refuse(leakage, allow=False, path=tmp_path / "leakage.csv")
    assert not (tmp_path / "leakage.csv").exists()


@pytest.mark.slow
def test_nothing_is_found_among_three_hundred_synthetic_studies(tmp_path: Path) -> None:
    drawn(tmp_path / "a", {"train": 180, "val": 10}, seed=3, size=64)
    drawn(tmp_path / "b", {"train": 60, "val": 10, "test": 40}, seed=4, size=64)
    assert check_leakage(task_data(tmp_path / "b"), run_on(tmp_path / "a", tmp_path / "run")).findings == []


@pytest.mark.parametrize(("row", "where"), [(3, "pretraining"), (18, "pretraining validation")])
def test_a_patient_of_pretraining_is_found(
    row: int, where: str, judged: Path, pretraining: Path, tmp_path: Path
) -> None:
    wanted = judged_row(judged)
    data = altered(pretraining, tmp_path / "data", values("patient_id", {row: wanted["patient_id"]}))
    leakage = check_leakage(task_data(judged), run_on(data, tmp_path / "run"))
    assert {(each.kind, each.patient, each.where) for each in leakage.findings} == {
        ("patient", wanted["patient_id"], where)
    }
    frame = pd.read_parquet(judged / "manifest.parquet")
    images = frame["image_path"][(frame["split"] == "test") & (frame["patient_id"] == wanted["patient_id"])]
    assert [each.image for each in leakage.findings] == images.tolist()
    assert {each.other_study for each in leakage.findings} == {
        pd.read_parquet(data / "manifest.parquet")["study_id"][row]
    }


@pytest.mark.parametrize("hashed", [True, False])
def test_the_same_file_under_other_names_is_found(
    hashed: bool, judged: Path, pretraining: Path, tmp_path: Path
) -> None:
    wanted = judged_row(judged, 5)

    def copy(frame: pd.DataFrame, folder: Path) -> pd.DataFrame:
        shutil.copy(judged / wanted["image_path"], folder / frame["image_path"].iloc[2])
        frame = values("sha256", {2: wanted["sha256"]})(frame, folder)
        return frame if hashed else frame.assign(sha256="")

    data = altered(pretraining, tmp_path / "data", copy)
    plain = altered(judged, tmp_path / "judged", lambda frame, _: frame if hashed else frame.assign(sha256=""))
    leakage = check_leakage(task_data(plain), run_on(data, tmp_path / "run"))
    study = pd.read_parquet(data / "manifest.parquet")["study_id"].iloc[2]
    assert [(each.kind, each.study, each.other_study, each.correlation) for each in leakage.findings] == [
        ("file", wanted["study_id"], study, None)
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
        frame = values("image_path", {4: name})(frame, folder)
        frame = values("sha256", {4: sha256(folder / name)})(frame, folder)
        width, height = made.size
        frame = values("width", {4: width})(values("height", {4: height})(frame, folder), folder)
        return frame if sized else frame.drop(columns=["width", "height"])

    data = altered(pretraining, tmp_path / "data", paint)
    leakage = check_leakage(task_data(judged), run_on(data, tmp_path / "run"))
    study = pd.read_parquet(data / "manifest.parquet")["study_id"].iloc[4]
    assert [(each.kind, each.study, each.other_study) for each in leakage.findings] == [
        ("picture", wanted["study_id"], study)
    ]
    assert leakage.findings[0].correlation >= 0.98  # type: ignore[operator]


def test_black_bars_are_taken_off_where_the_size_is_right() -> None:
    square = np.zeros((10, 10), dtype=np.uint8)
    square[2:7] = 9
    assert without_padding(square, 200, 100).shape == (5, 10)
    assert without_padding(square, 0, 0).shape == (10, 10)
    assert without_padding(square, 100, 200).shape == (10, 10)  # there is something beside such a picture
    assert without_padding(square, 300, 30).shape == (10, 10)


def test_blank_pictures_are_counted_and_match_nothing(judged: Path, pretraining: Path, tmp_path: Path) -> None:
    def blank(row: int) -> Change:
        def change(frame: pd.DataFrame, folder: Path) -> pd.DataFrame:
            Image.new("L", (128, 128), row).save(folder / frame["image_path"][row])
            return frame.assign(sha256="")

        return change

    test, data = altered(judged, tmp_path / "judged", blank(33)), altered(pretraining, tmp_path / "data", blank(4))
    leakage = check_leakage(task_data(test), run_on(data, tmp_path / "run"))
    assert leakage.findings == []
    assert [each.kind for each in leakage.cautions] == ["pictures"]
    assert "1 of 22 pretraining pictures are not noted" in leakage.cautions[0].text


def test_sizes_in_the_manifest_place_the_picture_as_it_is_read(tmp_path: Path) -> None:
    for width, height in ((50, 31), (31, 50), (47, 47), (100, 3)):
        Image.new("L", (width, height), 200).save(tmp_path / "a.png")
        inside = without_padding(read_image(tmp_path / "a.png", 24), width, height)
        assert inside.min() == 200


def test_test_images_in_training_or_validation_are_found(judged: Path, tmp_path: Path) -> None:
    wanted = judged_row(judged, 1)
    data = altered(judged, tmp_path / "judged", values("patient_id", {0: wanted["patient_id"], 25: "phantom:x"}))
    found = check_leakage(task_data(data), encoder_of(None, "random resnet18")).findings
    assert {(each.kind, each.patient, each.where) for each in found} == {
        ("patient", wanted["patient_id"], "training")
    }
    shutil.copy(judged / wanted["image_path"], data / "images" / "phantom-1-000024.png")  # row 24 is validation's
    frame = pd.read_parquet(data / "manifest.parquet")
    assert frame["split"][24] == "val"
    write_manifest(values("image_path", {24: "images/phantom-1-000024.png"})(frame, data), data / "manifest.parquet")
    found = check_leakage(task_data(data), encoder_of(None, "random resnet18")).findings
    assert {(each.kind, each.where) for each in found} == {("patient", "training"), ("picture", "validation")}
    # A protocol that learns nothing has no training rows.
    learned_nothing = check_leakage(task_data(data, "zero_shot"), encoder_of(None, "random resnet18"))
    assert learned_nothing.findings == []


def test_drawings_are_told_apart_by_ids_and_files_alone(judged: Path, tmp_path: Path) -> None:
    def copied(frame: pd.DataFrame, folder: Path) -> pd.DataFrame:
        with Image.open(folder / judged_row(judged, 2)["image_path"]) as image:
            image.save(folder / "copy.jpg")
        shutil.copy(folder / judged_row(judged, 3)["image_path"], folder / "same.png")
        frame = values("sha256", {0: "", 1: judged_row(judged, 3)["sha256"]})(frame, folder)
        return values("image_path", {0: "copy.jpg", 1: "same.png"})(frame, folder)

    data = altered(judged, tmp_path / "a", copied)
    assert check_leakage(task_data(data), encoder_of(None, "random")).counts() == {"file": 1, "picture": 1}
    data = altered(data, tmp_path / "b", lambda frame, _: frame.assign(dataset="phantom"))
    assert check_leakage(task_data(data), encoder_of(None, "random")).counts() == {"file": 1}


def test_every_place_where_a_patient_was_seen_is_named(judged: Path, tmp_path: Path) -> None:
    wanted = judged_row(judged, 1)["patient_id"]
    everywhere = altered(judged, tmp_path / "judged", values("patient_id", dict.fromkeys((0, 1, 24, 25), wanted)))
    found = check_leakage(task_data(everywhere), run_on(everywhere, tmp_path / "run")).findings
    places = ["pretraining", "pretraining validation", "training", "validation"]
    images = sorted({each.image for each in found})
    assert sorted((each.image, each.where) for each in found) == [
        (image, place) for image in images for place in places
    ]


def test_sizes_that_were_corrected_are_used(judged: Path, tmp_path: Path) -> None:
    def widened(frame: pd.DataFrame, folder: Path) -> pd.DataFrame:
        with Image.open(folder / judged_row(judged, 2)["image_path"]) as image:
            image.resize((200, 100)).save(folder / "wide.png")
        return values("image_path", {0: "wide.png"})(frame, folder)

    wrong = altered(judged, tmp_path / "a", lambda frame, folder: widened(frame, folder))
    assert check_leakage(task_data(wrong), encoder_of(None, "random"), tmp_path / "cache").findings == []
    for number, (width, height) in enumerate([(200, 100), (None, None)]):  # stated, and read from the file
        frame = pd.read_parquet(wrong / "manifest.parquet")
        frame = values("width", {0: width})(values("height", {0: height})(frame, wrong), wrong)
        write_manifest(frame, wrong / "manifest.parquet")
        found = check_leakage(task_data(wrong), encoder_of(None, "random"), tmp_path / "cache")
        assert found.counts() == {"picture": 1}, number


def test_pictures_of_many_blocks_are_those_of_comparing_everything(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)

    def side(count: int, copies: dict[int, int], key: str, step: int) -> sides.Side:
        facts = np.zeros(count, dtype=SIGNATURE)
        facts["comparable"] = True
        facts["hashes"] = generator.integers(0, 2**64, (count, 2, 4), dtype=np.uint64)
        facts["thumbnails"] = generator.integers(0, 256, (count, 2, 32, 32))
        for row, original in copies.items():
            facts[row] = originals[original]
        names = [f"{key}{row}" for row in range(count)]
        frame = pd.DataFrame(dict.fromkeys(("image_path", "study_id", "sha256"), names))
        frame = frame.assign(patient_id="", dataset="d", where="training")
        blocks = [(start, facts[start : start + step]) for start in range(0, count, step)]
        return sides.Side(frame, lambda: iter(blocks), key, 0)

    test = side(30, {}, "test", 7)
    originals = np.concatenate([block for _, block in test.blocks()])
    copies = {3: 5, 19: 0, 20: 29, 47: 5, 58: 11}
    other = side(60, copies, "other", 10)
    other.frame.loc[[19, 47], "sha256"] = "other3"  # 47 is the file of row 3 again; 19 says so
    test.frame["sha256"] = ["other20" if row == 29 else f"test{row}" for row in range(30)]
    found = compare.compare(test, other, tmp_path, lambda _: None)
    assert sorted((row, each.kind, each.other_study) for row, each in found) == [
        (5, "picture", "other3"),
        (11, "picture", "other58"),
        (29, "file", "other20"),
    ]


def test_empty_patient_ids_match_nothing_and_are_said(judged: Path, pretraining: Path, tmp_path: Path) -> None:
    nameless = altered(pretraining, tmp_path / "data", lambda frame, _: frame.assign(patient_id=""))
    test = altered(
        judged,
        tmp_path / "judged",
        lambda frame, _: frame.assign(patient_id=frame["patient_id"].mask(frame["split"] == "test", "")),
    )
    leakage = check_leakage(task_data(test), run_on(nameless, tmp_path / "run"))
    assert leakage.findings == []
    assert "12 of 12 test images name no patient" in {each.text for each in leakage.cautions if each.kind == "ids"}


def test_ids_are_compared_with_their_datasets_names(judged: Path, pretraining: Path, tmp_path: Path) -> None:
    """`17` of one dataset is not `17` of another, but `other:17` of a table that says so is."""

    def numbered(dataset: str) -> Change:
        return lambda frame, _: frame.assign(patient_id=[str(row) for row in range(len(frame))], dataset=dataset)

    test = altered(judged, tmp_path / "judged", numbered("mine"))
    for dataset, found in (("theirs", 0), ("mine", 12)):
        data = altered(pretraining, tmp_path / dataset, numbered(dataset))
        ids = (
            values("patient_id", {row: f"mine:{32 + row}" for row in range(12)}) if found else lambda frame, _: frame
        )
        data = altered(data, tmp_path / f"{dataset}-2", ids)
        leakage = check_leakage(task_data(test, "zero_shot"), run_on(data, tmp_path / f"run-{dataset}"))
        assert leakage.counts() == ({"patient": found} if found else {})


KIN = [
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


@pytest.mark.parametrize(("dataset", "patient", "other", "other_patient", "text"), KIN)
def test_kinships_without_comparable_ids_are_said(
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
    leakage = check_leakage(task_data(test), run_on(data, tmp_path / "run"))
    said = [each.text for each in leakage.cautions if each.kind == "kin"]
    assert leakage.findings == []
    assert len(said) == bool(text)
    assert all(text in each for each in said)


def test_patients_of_covidx_that_are_images_of_rsna_are_found(
    judged: Path, pretraining: Path, tmp_path: Path
) -> None:
    test = altered(
        judged,
        tmp_path / "judged",
        lambda frame, _: frame.assign(dataset="covidx", patient_id=[f"rsna:i{row}" for row in range(len(frame))]),
    )
    data = altered(
        pretraining,
        tmp_path / "data",
        lambda frame, _: frame.assign(
            dataset="rsna", patient_id="nih:1", study_id=[f"rsna:i{row + 40}" for row in range(len(frame))]
        ),
    )
    found = check_leakage(task_data(test), run_on(data, tmp_path / "run")).findings
    assert {(each.kind, each.patient, each.other_study) for each in found} == {
        ("patient", f"rsna:i{row}", f"rsna:i{row}") for row in range(40, 44)
    }


@pytest.mark.parametrize(("name", "kinds"), [("rsna", {"patient", "picture"}), ("siim", {"picture"})])
def test_chests_of_nih_are_found_in_the_datasets_made_of_it(name: str, kinds: set[str], tmp_path: Path) -> None:
    """DICOM there, PNG here; RSNA's mapping gives the patients, SIIM has none."""
    options, console = PrepareOptions(size=96), Console(file=io.StringIO())
    for each in ("nih", name):
        prepare(each, write_tree(each, tmp_path / f"{each}-tree", 24, size=96), tmp_path / each, options, console)
    everyone = altered(
        tmp_path / "nih", tmp_path / "data", lambda frame, _: frame.assign(findings="No effusion.", split="train")
    )
    leakage = check_leakage(task_data(tmp_path / name), run_on(everyone, tmp_path / "run"))
    assert leakage.counts() == dict.fromkeys(sorted(kinds), leakage.images)
    assert leakage.images > 2
    assert any(each.kind == "kin" for each in leakage.cautions) == (name == "siim")


def test_a_refusal_names_patients_the_file_with_all_and_the_way_out(
    judged: Path, pretraining: Path, tmp_path: Path
) -> None:
    frame = pd.read_parquet(judged / "manifest.parquet")
    patients = frame["patient_id"][frame["split"] == "test"].unique()
    data = altered(pretraining, tmp_path / "data", values("patient_id", dict(enumerate(patients))))
    leakage = check_leakage(task_data(judged), run_on(data, tmp_path / "run"))
    file = tmp_path / "out" / "leakage.csv"
    with pytest.raises(UserError) as refused:
        refuse(leakage, allow=False, path=file)
    message = str(refused.value)
    assert "linear/v1" in message
    assert f"12 (of {len(patients)} patients; 12 by patient)" in message
    assert patients[0] in message
    assert str(file) in message
    assert "--allow-leakage" in message
    assert "cmcgns check PRETRAINING-DATA TEST-DATA --fix" in message
    assert len(message.splitlines()) < 12
    with file.open(newline="") as stream:
        written = list(csv.DictReader(stream))
    assert {row["image"] for row in written} == set(frame["image_path"][frame["split"] == "test"])
    assert {row["patient"] for row in written} == set(patients)
    assert list(written[0]) == [each.name for each in fields(Overlap)]
    file.unlink()
    refuse(leakage, allow=True, path=file)
    assert file.is_file()
    assert leakage.text == f"of 12 test images 12 (of {len(patients)} patients; 12 by patient) in pretraining"


def overlap(kind: Any, where: str, image: str = "i1", correlation: float | None = None) -> Overlap:
    return Overlap(kind, image, "s1", "p1", where, "s2", "p2", correlation)


def test_legacy_splits_leak_by_design_but_pretraining_does_not() -> None:
    inside = [overlap("patient", "training"), overlap("picture", "validation", "i2", 0.99)]
    legacy = Leakage("rsna-linear/legacy", inside, legacy=True, images=9)
    refuse(legacy, allow=False)
    assert legacy.text == (
        "of 9 test images 2 (of 1 patients; 1 by patient, 1 by picture) in training or validation, by design of the "
        "legacy split"
    )
    both = Leakage("rsna-linear/legacy", [*inside, overlap("file", "pretraining of first")], legacy=True, images=9)
    with pytest.raises(UserError, match=r"(?s)1 by file.*the same file as s2 \(pretraining of first\)"):
        refuse(both, allow=False)
    assert both.text.startswith("of 9 test images 1 (of 1 patients; 1 by file) in pretraining; 2 (")
    with pytest.raises(UserError, match="manifest of `cmcgns check DATA --fix`"):
        refuse(Leakage("linear/v1", inside, images=9), allow=False)


def test_the_rule_of_the_protocol_says_whether_it_is_legacy(judged: Path, tmp_path: Path) -> None:
    twice = altered(judged, tmp_path / "data", values("patient_id", {0: judged_row(judged)["patient_id"]}))
    for rule, legacy in (("any", False), ("legacy", True)):
        data = task_data(twice, rule=rule)
        leakage = check_leakage(data, encoder_of(None, "random x"))
        assert leakage.findings
        assert (leakage.legacy, leakage.refused == []) == (legacy, legacy)


def test_a_stale_list_of_findings_does_not_stay(tmp_path: Path) -> None:
    file = tmp_path / "leakage.csv"
    refuse(Leakage("x/v1", [overlap("patient", "pretraining")], images=3), allow=True, path=file)
    assert len(file.read_text().splitlines()) == 2
    refuse(Leakage("x/v1", images=3), allow=False, path=file)
    assert len(file.read_text().splitlines()) == 1


def test_what_is_not_known_is_said(judged: Path, tmp_path: Path) -> None:
    data = task_data(judged)
    for encoder, said in (
        (encoder_of(tmp_path / "old run"), "its run folder has no seen.parquet"),
        (encoder_of(None, "resnet50 (weights)"), "resnet50 (weights) was pretrained on is not known"),
        (encoder_of(None, "imagenet resnet50"), "is not known"),
    ):
        leakage = check_leakage(data, encoder)
        assert [each.kind for each in leakage.cautions] == ["unknown"]
        assert said in leakage.cautions[0].text
        refuse(leakage, allow=False)
    assert check_leakage(data, encoder_of(None, "random resnet50")).cautions == []


def test_a_damaged_record_is_named(judged: Path, pretraining: Path, tmp_path: Path) -> None:
    encoder = run_on(pretraining, tmp_path / "run")
    file = tmp_path / "run" / "seen.parquet"
    content = file.read_bytes()
    for damaged in (b"", content[: len(content) // 2], b"PAR1" + b"x" * 100):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=r"seen\.parquet cannot be read"):
            check_leakage(task_data(judged), encoder)
    pd.DataFrame({"patient_id": ["a"]}).to_parquet(file)
    with pytest.raises(UserError, match=r"seen\.parquet cannot be read"):
        check_leakage(task_data(judged), encoder)


def test_a_run_folder_may_have_moved_and_its_data_be_gone(judged: Path, pretraining: Path, tmp_path: Path) -> None:
    data = altered(pretraining, tmp_path / "data", values("patient_id", {0: judged_row(judged)["patient_id"]}))
    run_on(data, tmp_path / "run")
    before = check_leakage(task_data(judged), encoder_of(tmp_path / "run"), tmp_path / "cache")
    shutil.rmtree(data)
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    after = check_leakage(task_data(judged), encoder_of(tmp_path / "elsewhere"), tmp_path / "cache2")
    assert after == before
    assert before.findings


def test_a_second_call_computes_nothing_and_finds_the_same(
    judged: Path, pretraining: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = altered(judged, tmp_path / "judged", lambda frame, _: frame)
    shutil.copy(data / judged_row(data)["image_path"], data / "images" / "copy.png")
    encoder = run_on(pretraining, tmp_path / "run")
    frame = values("image_path", {0: "images/copy.png"})(pd.read_parquet(data / "manifest.parquet"), data)
    write_manifest(frame, data / "manifest.parquet")
    shares: list[float] = []
    first = check_leakage(task_data(data), encoder, tmp_path / "cache", lambda _, share: shares.append(share))
    assert first.counts() == {"picture": 1}
    assert max(shares) == 1
    with monkeypatch.context() as patch:
        for module, name in ((sides, "square_signatures"), (compare, "near_duplicates")):
            patch.setattr(module, name, lambda *_: pytest.fail("computed again"))
        assert check_leakage(task_data(data), encoder, tmp_path / "cache") == first
    # A file with other content is looked at again.
    shutil.copy(data / frame["image_path"][1], data / "images" / "copy.png")
    os.utime(data / "images" / "copy.png", (1, 1))
    assert check_leakage(task_data(data), encoder, tmp_path / "cache").findings == []


def test_torn_caches_are_made_anew(judged: Path, pretraining: Path, tmp_path: Path) -> None:
    encoder, cache = run_on(pretraining, tmp_path / "run"), tmp_path / "cache"
    first = check_leakage(task_data(judged), encoder, cache)
    for file in cache.rglob("*.npz"):
        file.write_bytes(b"")
    assert check_leakage(task_data(judged), encoder, cache) == first


@pytest.mark.real_data
def test_real_patients_of_training_and_validation_share_no_picture(tmp_path: Path) -> None:
    folder = os.environ.get("CMCGNS_DEV_DATA")
    if not folder:
        pytest.skip("CMCGNS_DEV_DATA is not set")
    root = Path(folder).resolve() / "nih"
    labels = pd.read_csv(root / "labels.csv", dtype=str)
    frame = pd.DataFrame(
        {
            "image_path": [str(root / path) for path in labels["image_path"]],
            "study_id": "nih:" + labels["nih_index"],
            "patient_id": "nih:" + labels["patient_id"],
            "dataset": "nih",
            "view": labels["view"],
            "split": labels["split"],
            "label_Effusion": labels["Effusion"],
        }
    )
    write_manifest(frame, tmp_path / "manifest.parquet")
    splits = {"test": ["val"], "val": []}
    leakage = check_leakage(task_data(tmp_path, **splits), encoder_of(None, "random"), tmp_path)
    assert leakage.findings == []
    # … and a re-encoded copy with another patient's id is found among them.
    number = int(np.flatnonzero(labels["split"] == "val")[3])
    with Image.open(frame["image_path"][number]) as image:
        image.resize((300, round(300 * image.height / image.width))).save(tmp_path / "copy.jpg", quality=40)
    copied = values("image_path", {0: "copy.jpg"})(frame, tmp_path)
    assert copied["split"][0] == "train"
    write_manifest(copied, tmp_path / "manifest.parquet")
    found = check_leakage(task_data(tmp_path, **splits), encoder_of(None, "random"), tmp_path).findings
    assert [(each.kind, each.study) for each in found] == [("picture", frame["study_id"][number])]
