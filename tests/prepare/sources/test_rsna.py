"""RSNA's stage 2 tree, written as the challenge and RSNA's page lay it out."""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import train_test_split

from cmcgns.common.errors import UserError
from cmcgns.data.manifest import conform
from cmcgns.data.tables import read_table
from cmcgns.prepare.sources import get_source
from cmcgns.prepare.sources.base import SourceOptions, SourceTable
from cmcgns.prepare.sources.rsna import images_of, read_mapping
from support.trees import write_dicom

V1, LEGACY = SourceOptions(), SourceOptions(split="legacy")
HEADER = "patientId,x,y,width,height,Target\n"
MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"
A, B, C, D = (f"000{letter}cfab-14fd-4e49-80ba-63a80b6bddd6" for letter in "1234")


def record(image: str, nih: str) -> dict[str, object]:
    """As in RSNA's file."""
    uids = dict.fromkeys(("StudyInstanceUID", "SeriesInstanceUID"), f"1.2.276.0.7230010.3.1.{nih[:8]}")
    return {"subset_img_id": image, "img_id": nih, "orig_labels": ["Infiltration"], "SOPInstanceUID": "1.2"} | uids


def write_tree(root: Path, labels: str, images: tuple[str, ...], mapping: object = None) -> None:
    for image in images:
        write_dicom(root / "stage_2_train_images" / f"{image}.dcm")
    (root / "stage_2_train_labels.csv").write_bytes(labels.encode())
    if mapping is not None:
        (root / MAPPING).write_text(json.dumps(mapping))


LABELS = f"{HEADER}{B},264.0,152.0,213.0,379.0,1\n{B},562.0,152.0,256.0,453.0,1\n{A},,,,,0\n{C},,,,,0\n"
CLASSES = f"patientId,class\n{B},Lung Opacity\n{B},Lung Opacity\n{A},No Lung Opacity / Not Normal\n{C},Normal\n"
NIH = [record(A, "00001280_000.png"), record(B, "00001280_003.png"), record(C, "00030805_000.png")]
NIH += [record(D, "00000002_000.png")]  # the mapping also names the images of the test set


def read(root: Path, options: SourceOptions = V1) -> SourceTable:
    return get_source("rsna").read(root, options)


def test_the_official_tree_row_by_row(tmp_path: Path) -> None:
    write_tree(tmp_path, LABELS, (A, B, C), NIH)
    (tmp_path / "stage_2_detailed_class_info.csv").write_text(CLASSES)
    result = read(tmp_path)
    assert (result.left_out, result.notes) == ([], [])
    conform(result.frame.assign(image_path="images/a.jpg"), "manifest")
    boxes = [
        {"label": "Lung Opacity", "x": 264.0, "y": 152.0, "width": 213.0, "height": 379.0},
        {"label": "Lung Opacity", "x": 562.0, "y": 152.0, "width": 256.0, "height": 453.0},
    ]
    frame = result.frame.assign(boxes=result.frame["boxes"].map(json.loads)).drop(columns="split")
    assert frame.to_dict("records") == [
        {
            "study_id": f"rsna:{image}",
            "patient_id": patient,
            "nih_image": nih,
            "dataset": "rsna",
            "view": "FRONTAL",
            "label_Pneumonia": label,
            "rsna_class": name,
            "boxes": found,
            "source": f"stage_2_train_images/{image}.dcm",
        }
        for image, patient, nih, label, name, found in (
            (A, "nih:1280", "00001280_000.png", 0, "No Lung Opacity / Not Normal", []),
            (B, "nih:1280", "00001280_003.png", 1, "Lung Opacity", boxes),
            (C, "nih:30805", "00030805_000.png", 0, "Normal", []),
        )
    ]


def test_without_the_mapping_patients_are_images_and_the_notes_say_so(tmp_path: Path) -> None:
    write_tree(tmp_path, LABELS, (A, B, C))
    result = read(tmp_path)
    assert result.frame["patient_id"].tolist() == [f"rsna:{image}" for image in (A, B, C)]
    assert f"image-level split: without {MAPPING} the patients behind the images are not known" in result.notes
    assert result.frame["rsna_class"].tolist() == ["", "", ""]
    assert any("stage_2_detailed_class_info.csv is not there" in note for note in result.notes)


@pytest.mark.filterwarnings("error")
def test_without_any_box_or_class_the_cells_are_empty(tmp_path: Path) -> None:
    write_tree(tmp_path, f"{HEADER}{A},,,,,0\n{C},,,,,0\n", (A, C), NIH)
    (tmp_path / "stage_2_detailed_class_info.csv").write_text("patientId,class\n")
    frame = read(tmp_path).frame
    assert frame["boxes"].tolist() == ["[]", "[]"]
    assert frame["rsna_class"].tolist() == ["", ""]


def test_packed_tables_and_a_mapping_as_csv(tmp_path: Path) -> None:
    write_tree(tmp_path, LABELS, (A, B, C))
    (tmp_path / "stage_2_train_labels.csv").rename(tmp_path / "plain")
    (tmp_path / "stage_2_train_labels.csv.gz").write_bytes(gzip.compress(LABELS.encode()))
    (tmp_path / "stage_2_detailed_class_info.csv.gz").write_bytes(gzip.compress(CLASSES.encode()))
    pairs = "".join(f"{entry['subset_img_id']},{entry['img_id']},0.5\n" for entry in NIH)
    text = f"rsna_patientId,nih_index,mse\n{pairs}"
    (tmp_path / "rsna_to_nih_mapping.csv.gz").write_bytes(gzip.compress(text.encode()))
    result = read(tmp_path)
    assert result.frame["patient_id"].tolist() == ["nih:1280", "nih:1280", "nih:30805"]
    assert result.frame["rsna_class"].tolist() == ["No Lung Opacity / Not Normal", "Lung Opacity", "Normal"]


def test_rsna_own_mapping_goes_before_any_other(tmp_path: Path) -> None:
    write_tree(tmp_path, LABELS, (A, B, C), NIH)
    (tmp_path / "a_mapping.json").write_text("broken")
    (tmp_path / "a_mapping.csv").write_text("broken")
    assert read(tmp_path).frame["patient_id"].tolist() == ["nih:1280", "nih:1280", "nih:30805"]


def test_missing_files_and_files_without_a_row_are_left_out_with_the_reason(tmp_path: Path) -> None:
    write_tree(tmp_path, LABELS, (A, B, D))
    result = read(tmp_path)
    assert result.frame["study_id"].tolist() == [f"rsna:{A}", f"rsna:{B}"]
    assert result.left_out == [
        {"where": f"stage_2_train_images/{C}.dcm", "reason": "no such file"},
        {"where": f"stage_2_train_images/{D}.dcm", "reason": "stage_2_train_labels.csv does not name it"},
    ]


def test_images_that_the_mapping_does_not_place_are_left_out(tmp_path: Path) -> None:
    twice = [record(A, "00000001_000.png"), record(B, "00001280_003.png"), record(B, "00000007_000.png")]
    write_tree(tmp_path, LABELS, (A, B, C), [*twice, record(C, "unknown.png")])
    result = read(tmp_path)
    assert result.frame["patient_id"].tolist() == ["nih:1"]
    assert [left["where"] for left in result.left_out] == [f"rsna:{B}", f"rsna:{C}"]
    assert all(MAPPING in left["reason"] for left in result.left_out)


def test_an_image_with_two_classes_has_none(tmp_path: Path) -> None:
    write_tree(tmp_path, LABELS, (A, B, C), NIH)
    (tmp_path / "stage_2_detailed_class_info.csv").write_text(f"{CLASSES}{C},Lung Opacity\n")
    result = read(tmp_path)
    assert result.frame["rsna_class"].tolist() == ["No Lung Opacity / Not Normal", "Lung Opacity", ""]
    assert any("two classes" in note for note in result.notes)


# Images A and B are good; image C must go, and only it.
FAULTS = {
    "no number": (f"{C},1,2,three,4,1\n", ["no number"]),
    "NaN box": (f"{C},NaN,NaN,NaN,NaN,1\n", ["missing or incomplete"]),
    "one NaN": (f"{C},1,2,nan,4,1\n", ["missing or incomplete"]),
    "infinite": (f"{C},1,2,inf,4,1\n", ["no number"]),
    "no box": (f"{C},,,,,1\n", ["missing or incomplete"]),
    "negative width": (f"{C},1,2,-3,4,1\n", ["without width or height"]),
    "no height": (f"{C},1,2,3,0,1\n", ["without width or height"]),
    "negative corner": (f"{C},-1,2,3,4,1\n", ["negative corner"]),
    "box without target": (f"{C},1,2,3,4,0\n", ["Target is 0, but"]),
    "empty target": (f"{C},,,,,\n", ["neither 0 nor 1"]),
    "strange target": (f"{C},1,2,3,4,2\n", ["neither 0 nor 1"]),
    "rows disagree": (f"{C},1,2,3,4,1\n{C},,,,,0\n", ["disagree", "disagree"]),
    "one bad of two": (f"{C},1,2,3,4,1\n{C},1,2,3,,1\n", ["another row", "incomplete"]),
    "empty id": (",1,2,3,4,1\n", ["empty patientId"]),
    "short row": (f"{C},1,2\n", ["neither 0 nor 1"]),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_bad_rows_go_with_a_reason_and_good_ones_stay(tmp_path: Path, fault: str, ends: str) -> None:
    rows, reasons = FAULTS[fault]
    labels = f"\ufeff{HEADER}{A},,,,,0\n{B},1,2,3,4,1\n{rows}".replace("\n", ends)
    write_tree(tmp_path, labels, (A, B, C) if C in rows else (A, B), NIH)
    result = read(tmp_path)
    assert result.frame["study_id"].tolist() == [f"rsna:{A}", f"rsna:{B}"]
    assert result.frame["label_Pneumonia"].tolist() == [0, 1]
    left = sorted(result.left_out, key=lambda entry: entry["where"])
    places = [f"stage_2_train_labels.csv, row {3 + place}" for place in range(len(reasons))]
    assert [entry["where"] for entry in left] == places
    assert all(words in entry["reason"] for entry, words in zip(left, reasons, strict=True))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ("", "stage_2_train_labels.csv cannot be read"),
        ("patientId,x,y,width,height\n", "missing column Target"),
        ("patientId,x,x,y,width,height,Target\n", "'x' stands there twice"),
        (f"{HEADER}{A},1,2,3,4,1,7\n", "cannot be read"),
    ],
)
def test_labels_that_are_no_table_are_a_user_error(tmp_path: Path, labels: str, words: str) -> None:
    write_tree(tmp_path, labels, (A,))
    with pytest.raises(UserError, match=words):
        read(tmp_path)


@pytest.mark.parametrize("missing", ["stage_2_train_labels.csv", "stage_2_train_images"])
def test_a_missing_part_of_the_tree_is_named(tmp_path: Path, missing: str) -> None:
    write_tree(tmp_path, LABELS, (A,))
    (tmp_path / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=missing):
        read(tmp_path)


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ("[{", "cannot be read as json"),
        ("", "cannot be read as json"),
        ("\udcff", "cannot be read as json"),
        ("[" * 100_000, "cannot be read as json"),
        ('{"datasets": []}', "a list of records"),
        ('["a"]', "a list of records"),
        (f'[{{"subset_img_id": "{A}", "img": 1}}]', "record 1 has no key img_id .found: subset_img_id, img"),
        (
            f'[{{"subset_img_id": "{A}", "img_id": "00000001_000.png"}}, {{"img_id": "b"}}]',
            "record 2 has no key subset_",
        ),
    ],
)
def test_a_mapping_of_another_structure_is_a_user_error(tmp_path: Path, mapping: str, words: str) -> None:
    write_tree(tmp_path, LABELS, (A, B, C))
    (tmp_path / MAPPING).write_bytes(mapping.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=words):
        read(tmp_path)


def test_a_mapping_table_without_its_columns_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "mapping.csv").write_text("rsna_patientId,nih\na,b\n")
    with pytest.raises(UserError, match="missing column nih_index"):
        read_mapping(tmp_path / "mapping.csv")


@pytest.mark.parametrize("value", [None, 7, ["00000001_000.png"], {"a": 1}, "9" * 400 + "_000.png"])
def test_strange_values_in_the_mapping_cost_one_image_only(tmp_path: Path, value: object) -> None:
    write_tree(tmp_path, LABELS, (A, B, C), [NIH[0], NIH[1], {"subset_img_id": C, "img_id": value}])
    result = read(tmp_path)
    assert result.frame["patient_id"].tolist() == ["nih:1280", "nih:1280"]
    assert [left["where"] for left in result.left_out] == [f"rsna:{C}"]


@pytest.mark.parametrize("rows", ["", f"{A},,,,,7\n"])
@pytest.mark.parametrize("mapping", [None, NIH, []])
@pytest.mark.parametrize("options", [V1, LEGACY])
def test_a_table_without_a_good_row_gives_no_rows(
    tmp_path: Path, rows: str, mapping: object, options: SourceOptions
) -> None:
    write_tree(tmp_path, HEADER + rows, (A,), mapping)
    result = read(tmp_path, options)
    assert len(result.frame) == 0
    assert len(result.left_out) == 1
    assert {"source", "split", "boxes", "label_Pneumonia", "patient_id"} <= set(result.frame)


def many_labels(images: int) -> pd.DataFrame:
    """A third of the images positive, with two boxes each, in an order that is not sorted."""
    rows = [
        (f"id{number:04}", *(("1", "2", "3", "4", "1") if number % 3 == 0 else ("", "", "", "", "0")))
        for number in range(images)
        for _ in range(2 if number % 3 == 0 else 1)
    ]
    frame = pd.DataFrame(rows, columns=HEADER.strip().split(","))
    return frame.sample(frac=1, random_state=3, ignore_index=True)


def write_many(root: Path, rows: pd.DataFrame) -> None:
    """Empty files stand in for images: readers open none."""
    rows.to_csv(root / "stage_2_train_labels.csv", index=False)
    (root / "stage_2_train_images").mkdir()
    for image in rows["patientId"].unique():
        (root / "stage_2_train_images" / f"{image}.dcm").touch()


def test_v1_keeps_nih_patients_together_and_is_stratified(tmp_path: Path) -> None:
    write_many(tmp_path, many_labels(900))
    owners = np.random.default_rng(0).integers(0, 400, 900)
    pairs = [record(f"id{number:04}", f"{owner:08}_{number:03}.png") for number, owner in enumerate(owners)]
    (tmp_path / MAPPING).write_text(json.dumps(pairs))
    frame = read(tmp_path).frame
    assert len(frame) == 900
    patients = frame.groupby("patient_id").agg(
        splits=("split", "nunique"), split=("split", "first"), label=("label_Pneumonia", "max")
    )
    assert (patients["splits"] == 1).all()
    for label in (0, 1):
        shares = patients.loc[patients["label"] == label, "split"].value_counts(normalize=True)
        assert shares.to_dict() == pytest.approx({"train": 0.7, "val": 0.15, "test": 0.15}, abs=0.01)
    assert read(tmp_path).frame["split"].equals(frame["split"])
    assert not read(tmp_path, SourceOptions(seed=1)).frame["split"].equals(frame["split"])
    assert "split_detection" not in frame


def test_legacy_repeats_the_published_draws(tmp_path: Path) -> None:
    write_many(tmp_path, many_labels(500))
    frame = read(tmp_path, LEGACY).frame.set_index("study_id")
    images = np.array([f"rsna:id{number:04}" for number in range(500)])  # published programs sort by id
    for column, held_out in (("split", 0.15 * 2), ("split_detection", 0.4)):
        train, rest = train_test_split(images, test_size=held_out, random_state=0)
        test, val = train_test_split(rest, test_size=0.5, random_state=0)
        for name, part in (("train", train), ("val", val), ("test", test)):
            assert set(frame.index[frame[column] == name]) == set(part)


@pytest.mark.parametrize("options", [V1, LEGACY])
def test_the_split_does_not_depend_on_the_files_that_are_there(tmp_path: Path, options: SourceOptions) -> None:
    write_many(tmp_path, many_labels(60))
    whole = read(tmp_path, options).frame.set_index("study_id")["split"]
    (tmp_path / "stage_2_train_images" / "id0007.dcm").unlink()
    assert read(tmp_path, options).frame.set_index("study_id")["split"].equals(whole.drop("rsna:id0007"))


@pytest.mark.real_data
@pytest.mark.skipif("CMCGNS_DEV_DATA" not in os.environ, reason="needs the development data")
class TestGenuineTables:
    @pytest.fixture(scope="class")
    def tree(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """The label file and mapping, and empty files that stand in for images."""
        folder = tmp_path_factory.mktemp("rsna")
        data = Path(os.environ["CMCGNS_DEV_DATA"])
        for name in ("stage_2_train_labels.csv.gz", "to_nih_mapping.csv.gz"):
            (folder / name).symlink_to(data / f"rsna_{name}")
        images = read_table(folder / "stage_2_train_labels.csv.gz")["patientId"].unique()
        (folder / "stage_2_train_images").mkdir()
        for image in images:
            (folder / "stage_2_train_images" / f"{image}.dcm").touch()
        return folder

    def test_v1_has_26684_images_and_no_nih_patient_in_two_splits(self, tree: Path) -> None:
        result = read(tree)
        assert result.left_out == []
        frame = result.frame
        assert len(frame) == frame["study_id"].nunique() == 26_684
        assert frame["label_Pneumonia"].sum() == 6_012
        boxes = frame["boxes"].map(json.loads)
        assert boxes.map(len).sum() == 9_555
        assert (boxes.map(len).gt(0) == frame["label_Pneumonia"].eq(1)).all()
        assert frame["patient_id"].str.fullmatch(r"nih:[1-9]\d*").all()
        assert frame["patient_id"].nunique() == 11_439
        assert (frame.groupby("patient_id")["split"].nunique() == 1).all()
        patients = frame.drop_duplicates("patient_id")["split"].value_counts(normalize=True)
        assert patients.to_dict() == pytest.approx({"train": 0.7, "val": 0.15, "test": 0.15}, abs=0.001)

    def test_legacy_has_the_published_numbers(self, tree: Path) -> None:
        frame = read(tree, LEGACY).frame
        assert frame["split"].value_counts().to_dict() == {"train": 18_678, "val": 4_003, "test": 4_003}
        assert frame["split_detection"].value_counts().to_dict() == {"train": 16_010, "val": 5_337, "test": 5_337}
        # With the published sizes as the program states them:
        images = sorted(frame["study_id"])
        train, _ = train_test_split(images, test_size=5337 * 2, random_state=0)
        assert set(frame.loc[frame["split_detection"] == "train", "study_id"]) == set(train)

    def test_boxes_are_those_of_a_slow_reading(self) -> None:
        rows = read_table(Path(os.environ["CMCGNS_DEV_DATA"]) / "rsna_stage_2_train_labels.csv.gz").head(3000)
        expected: dict[str, list[list[float]]] = {}
        for row in rows.itertuples():
            boxes = expected.setdefault(row.patientId, [])
            if row.Target == "1":
                boxes.append([float(row.x), float(row.y), float(row.width), float(row.height)])
        for row in images_of(rows, "labels").frame.itertuples():
            found = [[box[side] for side in ("x", "y", "width", "height")] for box in json.loads(row.boxes)]
            assert found == expected.pop(row.image)
        assert not expected
