"""VinDr-CXR as PhysioNet and as Kaggle publish it."""

import json
import shutil
from pathlib import Path

import pytest

from cmcgns.data.manifest import read_manifest
from support.trees import column, manifest_of, read_source, reasons, write_dicom, write_text

FINDINGS = ("Cardiomegaly", "Lung Opacity", "Other diseases", "No finding")


def names(part: str, count: int) -> list[str]:
    return [f"{part}{number:027d}" for number in range(count)]


def write_physionet(root: Path, train: int = 20, test: int = 4) -> Path:
    votes = {"R8": "1,0,0,0", "R9": "1,1,0,0", "R10": "0,0,0,1"}  # two of three see a large heart, one an opacity
    labels = [f"image_id,rad_id,{','.join(FINDINGS)}"]
    boxes = ["image_id,rad_id,class_name,x_min,y_min,x_max,y_max"]
    for name in names("train", train):
        write_dicom(root / "train" / f"{name}.dicom")
        labels += [f"{name},{reader},{cells}" for reader, cells in votes.items()]
        boxes += [
            f"{name},R8,Cardiomegaly,10.5,20,30.5,50",
            f"{name},R9,Cardiomegaly,11,21,31,51",
            f"{name},R10,No finding,,,,",
        ]
    boxes.append(f"{names('train', 1)[0]},R9,Lung Opacity,nan,1,2,3")
    write_text(root / "annotations/image_labels_train.csv", *labels)
    write_text(root / "annotations/annotations_train.csv", *boxes)
    header = f"image_id,{','.join(FINDINGS)}".replace("Other diseases", "Other disease")
    write_text(root / "annotations/image_labels_test.csv", header, *(f"{n},0,1,1,0" for n in names("test", test)))
    write_text(
        root / "annotations/annotations_test.csv",
        "image_id,class_name,x_min,y_min,x_max,y_max",
        f"{names('test', 1)[0]},Lung Opacity,1,2,3,5",
    )
    for name in names("test", test):
        write_dicom(root / "test" / f"{name}.dicom")
    return root


def test_majority_of_readers_and_all_boxes(tmp_path: Path) -> None:
    table = read_source("vindr", write_physionet(tmp_path / "vindr"))
    first = f"train/{names('train', 1)[0]}.dicom"
    assert column(table, "label_Cardiomegaly")[first] == 1
    assert column(table, "label_Lung Opacity")[first] == 0
    assert column(table, "label_No finding")[first] == 0
    boxes = json.loads(str(column(table, "boxes")[first]))
    assert boxes[0] == {"label": "Cardiomegaly", "x": 10.5, "y": 20, "width": 20, "height": 30, "rad_id": "R8"}
    assert [box["rad_id"] for box in boxes] == ["R8", "R9"]
    assert reasons(table).startswith("annotations_train.csv, row 61: box is not four numbers")
    assert set(table.frame["view"]) == {"PA"}
    assert "no patient ids" in reasons(table)
    assert len(read_manifest(manifest_of(table, tmp_path / "manifest.parquet"))) == 24


def test_test_table_has_one_consensus_and_another_spelling(tmp_path: Path) -> None:
    table = read_source("vindr", write_physionet(tmp_path))
    first, second = (f"test/{name}.dicom" for name in names("test", 2))
    assert column(table, "label_Other diseases")[first] == 1
    assert json.loads(str(column(table, "boxes")[first])) == [
        {"label": "Lung Opacity", "x": 1, "y": 2, "width": 2, "height": 3}
    ]
    assert column(table, "boxes")[second] == "[]"  # read, nothing marked
    assert table.frame["split"].value_counts().to_dict() == {"train": 18, "test": 4, "val": 2}


def test_kaggle_form(tmp_path: Path) -> None:
    rows = ["image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"]
    for name in names("kaggle", 10):
        write_dicom(tmp_path / "train" / f"{name}.dicom")
        rows += [
            f"{name},Cardiomegaly,3,R1,1,2,3,4",
            f"{name},Cardiomegaly,3,R1,5,5,9,9",
            f"{name},No finding,14,R2,,,,",
            f"{name},Nodule/Mass,8,R3,1,2,3,4",
            f"{name},Cardiomegaly,3,R3,1,2,3,4",
        ]
    write_text(tmp_path / "train.csv", *rows)
    table = read_source("vindr", tmp_path)
    first = f"train/{names('kaggle', 1)[0]}.dicom"
    found = {label: column(table, f"label_{label}")[first] for label in ("Cardiomegaly", "No finding", "Nodule/Mass")}
    assert found == {"Cardiomegaly": 1, "No finding": 0, "Nodule/Mass": 0}
    assert len(json.loads(str(column(table, "boxes")[first]))) == 4
    assert table.frame["split"].value_counts().to_dict() == {"train": 7, "test": 2, "val": 1}


def test_bad_reader_row_leaves_the_other_readers(tmp_path: Path) -> None:
    root = write_physionet(tmp_path, 2)
    file = root / "annotations/image_labels_train.csv"
    file.write_text(file.read_text().replace("R10,0,0,0,1", "R10,0,0,0,7", 1))
    (root / "train" / f"{names('train', 2)[1]}.dicom").unlink()
    table = read_source("vindr", root)
    first = f"train/{names('train', 1)[0]}.dicom"
    assert column(table, "label_Cardiomegaly")[first] == 1
    assert "image_labels_train.csv, row 3: No finding is '7'" in reasons(table)
    assert "image_labels_train.csv, row 4: no such image" in reasons(table)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("parts", [("train",), ("test",), ("train", "test")])
def test_annotations_without_a_row_mark_nothing(tmp_path: Path, parts: tuple[str, ...]) -> None:
    root = write_physionet(tmp_path)
    for part in parts:
        file = root / f"annotations/annotations_{part}.csv"
        write_text(file, file.read_text().splitlines()[0])
    frame = read_source("vindr", root).frame
    assert len(frame) == 24
    for part in parts:
        assert set(frame.loc[frame["source"].str.startswith(part), "boxes"]) == {"[]"}


@pytest.mark.parametrize("part", ["train", "test"])
def test_labels_without_a_row_leave_the_other_part(tmp_path: Path, part: str) -> None:
    root = write_physionet(tmp_path)
    for table in ("image_labels", "annotations"):
        file = root / f"annotations/{table}_{part}.csv"
        write_text(file, file.read_text().splitlines()[0])
    frame = read_source("vindr", root).frame
    assert set(frame["source"].str.partition("/")[0]) == {"train", "test"} - {part}


def test_tables_with_headers_only_give_no_row(tmp_path: Path) -> None:
    root = write_physionet(tmp_path / "physionet", 2, 1)
    for file in (root / "annotations").iterdir():
        write_text(file, file.read_text().splitlines()[0])
    write_text(tmp_path / "kaggle/train.csv", "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max")
    for folder in (root, tmp_path / "kaggle"):
        assert len(read_source("vindr", folder).frame) == 0


@pytest.mark.filterwarnings("error")
def test_without_any_image_every_row_is_left_out_with_the_reason(tmp_path: Path) -> None:
    root = write_physionet(tmp_path)
    shutil.rmtree(root / "train")
    shutil.rmtree(root / "test")
    table = read_source("vindr", root)
    assert len(table.frame) == 0
    assert sum(entry["reason"] == "no such image" for entry in table.left_out) == 24
