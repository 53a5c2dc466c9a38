"""NIH ChestX-ray14 in its official layout."""

import json
import shutil
from pathlib import Path

import pytest

from cmcgns.common.errors import UserError
from cmcgns.data.manifest import read_manifest
from support.trees import column, manifest_of, read_source, reasons, write_image, write_text

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"


def write_tree(root: Path, patients: int = 40, folder: str = "images_001/images") -> Path:
    """Two images a patient; the last quarter of the patients is the official test set."""
    rows, lists = [HEADER], {"train_val": [], "test": []}
    for number in range(1, patients + 1):
        for follow_up, finding in enumerate(("No Finding", "Cardiomegaly|Pleural_Thickening")):
            name = f"{number:08d}_{follow_up:03d}.png"
            age = {1: "058Y", 2: "414", 3: "011M"}.get(number, "47")
            rows.append(f"{name},{finding},{follow_up},{number},{age},M,PA,2682,2749,0.143,0.143,")
            lists["test" if number > 0.75 * patients else "train_val"].append(name)
            write_image(root / folder / name, number)
    write_text(root / "Data_Entry_2017.csv", *rows)
    write_text(root / "train_val_list.txt", *lists["train_val"])
    write_text(root / "test_list.txt", *lists["test"])
    boxes = (
        "00000001_001.png,Infiltrate,225.08,547.01,86.7,79.1,,,",
        "00000001_001.png,Mass,1,2,3,4,,,",
        "00000002_001.png,Mass,1,nan,3,4,,,",
        "00000003_001.png,Mass,1,2,0,4,,,",
    )
    write_text(root / "BBox_List_2017.csv", BOX_HEADER, *boxes)
    return root


def test_labels_ids_ages_boxes(tmp_path: Path) -> None:
    table = read_source("nih", write_tree(tmp_path / "nih"))
    first, second = (f"images_001/images/00000001_00{number}.png" for number in (0, 1))
    labels = [name for name in table.frame if name.startswith("label_")]
    assert len(labels) == 14
    assert "label_No Finding" not in labels
    assert table.frame.set_index("source").loc[first, labels].sum() == 0
    assert table.frame.set_index("source").loc[second, labels].sum() == 2
    assert column(table, "label_Pleural_Thickening")[second] == 1
    assert column(table, "patient_id")[first] == "nih:1"
    assert column(table, "study_id")[first] == "nih:00000001_000"
    ages = {number: column(table, "age")[f"images_001/images/0000000{number}_000.png"] for number in (1, 2, 3, 4)}
    assert ages == {1: 58, 2: None, 3: 0, 4: 47}
    boxes = json.loads(str(column(table, "boxes")[second]))
    assert boxes[0] == {"label": "Infiltration", "x": 225.08, "y": 547.01, "width": 86.7, "height": 79.1}
    assert len(boxes) == 2
    assert column(table, "boxes")[first] == ""  # not annotated
    assert [entry["where"] for entry in table.left_out] == ["BBox_List_2017.csv, row 3", "BBox_List_2017.csv, row 4"]
    assert len(table.frame) == 80
    assert len(read_manifest(manifest_of(table, tmp_path / "manifest.parquet"))) == 80


def test_official_test_list_and_validation_by_patient(tmp_path: Path) -> None:
    table = read_source("nih", write_tree(tmp_path))
    assert table.frame["split"].value_counts().to_dict() == {"train": 52, "test": 20, "val": 8}
    assert (table.frame.groupby("patient_id")["split"].nunique() == 1).all()
    numbers = table.frame["patient_id"].str.removeprefix("nih:").astype(int)
    assert ((numbers > 30) == (table.frame["split"] == "test")).all()
    assert column(read_source("nih", tmp_path), "split") == column(table, "split")


def test_new_tables_names_and_one_image_folder(tmp_path: Path) -> None:
    write_tree(tmp_path, 4, "images")
    text = (tmp_path / "Data_Entry_2017.csv").read_text().replace("Gender", "Sex").replace(",\n", "\n")
    (tmp_path / "Data_Entry_2017.csv").unlink()
    (tmp_path / "Data_Entry_2017_v2020.csv").write_text(text)
    (tmp_path / "BBox_List_2017.csv").unlink()
    write_image(tmp_path / "images-224" / "00000001_000.png")
    frame = read_source("nih", tmp_path).frame
    assert len(frame) == 8
    assert set(frame["sex"]) == {"M"}
    assert frame["source"].str.startswith("images/").all()  # the copies in another size are not the dataset
    assert set(frame["boxes"]) == {""}


def test_without_lists_the_split_is_drawn(tmp_path: Path) -> None:
    write_tree(tmp_path)
    (tmp_path / "test_list.txt").unlink()
    table = read_source("nih", tmp_path)
    assert (table.frame.groupby("patient_id")["split"].nunique() == 1).all()
    assert table.frame["split"].value_counts().to_dict() == {"train": 56, "test": 16, "val": 8}
    assert "drawn by patient" in reasons(table)


def test_bad_rows_are_named(tmp_path: Path) -> None:
    write_tree(tmp_path, 3)
    with (tmp_path / "Data_Entry_2017.csv").open("a") as file:
        file.write("00000001_000.png,Scoliosis|Edema,0,1,58,M,PA,1,1,1,1,\n")
        file.write("00000001_000.png,Edema,0,one,58,M,PA,1,1,1,1,\n")
        file.write("00000009_000.png,Edema,0,9,58,M,PA,1,1,1,1,\n")
    with (tmp_path / "test_list.txt").open("a") as file:
        file.write("00000001_001.png\n")
    table = read_source("nih", tmp_path)
    text = reasons(table)
    assert "Data_Entry_2017.csv, row 7: Finding Labels has the unknown 'Scoliosis'" in text
    assert "Data_Entry_2017.csv, row 8: Patient ID is 'one'" in text
    assert "Data_Entry_2017.csv, row 9: no such image" in text
    assert "Data_Entry_2017.csv, row 2: in train_val_list.txt and in test_list.txt" in text
    assert len(table.frame) == 5


def test_box_list_of_another_form_is_refused(tmp_path: Path) -> None:
    write_tree(tmp_path, 2)
    write_text(tmp_path / "BBox_List_2017.csv", "Image Index,x,y,w,h", "a.png,1,2,3,4")
    with pytest.raises(UserError, match=r"BBox_List_2017.*header"):
        read_source("nih", tmp_path)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("boxes", ["no list", "no row", "rows of other images"])
def test_without_boxes_no_image_is_annotated(tmp_path: Path, boxes: str) -> None:
    file = write_tree(tmp_path, 4) / "BBox_List_2017.csv"
    file.unlink()
    if boxes != "no list":
        other = ["00000099_000.png,Mass,1,2,3,4,,,"] if boxes == "rows of other images" else []
        write_text(file, BOX_HEADER, *other)
    frame = read_source("nih", tmp_path).frame
    assert len(frame) == 8
    assert set(frame["boxes"]) == {""}


@pytest.mark.filterwarnings("error")
def test_without_any_image_every_row_is_left_out_with_the_reason(tmp_path: Path) -> None:
    shutil.rmtree(write_tree(tmp_path, 4) / "images_001")
    table = read_source("nih", tmp_path)
    assert len(table.frame) == 0
    assert sum(entry["reason"] == "no such image" for entry in table.left_out) == 8
