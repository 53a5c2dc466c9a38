"""CheXpert in its official layouts."""

import shutil
from pathlib import Path

import pytest

from cmcgns.common.errors import UserError
from cmcgns.data.manifest import read_manifest
from cmcgns.data.vocabulary import CHEXPERT_FINDINGS
from support.trees import column, manifest_of, read_source, reasons, write_image, write_text

HEADER = ",".join(["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT_FINDINGS])


def row(path: str, *details: str, **labels: str) -> str:
    cells = [labels.get(finding.replace(" ", "_"), "") for finding in CHEXPERT_FINDINGS]
    return ",".join([path, *details, *cells])


def write_tree(root: Path, patients: int = 80, release: str = "CheXpert-v1.0-small") -> Path:
    """Every patient has a frontal and a lateral image in one study."""
    train = [HEADER]
    for number in range(1, patients + 1):
        study = f"train/patient{number:05d}/study1"
        train.append(row(f"{release}/{study}/view1_frontal.jpg", "Female", "68", "Frontal", "AP", Edema="-1.0"))
        train.append(
            row(f"{release}/{study}/view2_lateral.jpg", "Male", "0", "Lateral", "", Edema="1.0", Fracture="0.0")
        )
        write_image(root / release / study / "view1_frontal.jpg")
        write_image(root / release / study / "view2_lateral.jpg")
    valid = [HEADER]
    for view, details in (("view1_frontal", ("Frontal", "PA")), ("view2_lateral", ("Lateral", ""))):
        path = f"valid/patient64541/study1/{view}.jpg"
        valid.append(row(f"{release}/{path}", "Unknown", "73", *details, Edema="0.0"))
        write_image(root / release / path)
    write_text(root / release / "train.csv", *train)
    write_text(root / release / "valid.csv", *valid)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "data")


def test_ids_labels_views(root: Path, tmp_path: Path) -> None:
    table = read_source("chexpert", root)
    first = "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg"
    second = first.replace("view1_frontal", "view2_lateral")
    assert column(table, "patient_id")[first] == "chexpert:patient00001"
    assert column(table, "study_id")[first] == column(table, "study_id")[second] == "chexpert:patient00001/study1"
    assert (column(table, "view")[first], column(table, "view")[second]) == ("AP", "LATERAL")
    assert (column(table, "label_Edema")[first], column(table, "label_Edema")[second]) == (-1, 1)
    assert (column(table, "label_Fracture")[first], column(table, "label_Fracture")[second]) == (None, 0)
    assert (column(table, "sex")[first], column(table, "age")[first]) == ("F", 68)
    assert column(table, "age")[second] is None  # 0 means unknown
    assert sum(name.startswith("label_") for name in table.frame) == 14
    assert not table.left_out
    assert len(read_manifest(manifest_of(table, tmp_path / "manifest.parquet"))) == 162


def test_validation_is_drawn_by_patient_and_valid_is_test(root: Path) -> None:
    table = read_source("chexpert", root)
    splits = table.frame.groupby("patient_id")["split"].unique()
    assert (splits.map(len) == 1).all()
    counts = table.frame["split"].value_counts()
    assert counts.to_dict() == {"train": 156, "val": 4, "test": 2}
    assert column(table, "split")["CheXpert-v1.0-small/valid/patient64541/study1/view2_lateral.jpg"] == "test"
    assert column(read_source("chexpert", root), "split") == column(table, "split")
    assert column(read_source("chexpert", root, seed=1), "split") != column(table, "split")


def test_folder_itself_may_be_the_root(root: Path) -> None:
    inside = read_source("chexpert", root / "CheXpert-v1.0-small")
    assert "train/patient00001/study1/view1_frontal.jpg" in set(inside.frame["source"])
    assert list(inside.frame["split"]) == list(read_source("chexpert", root).frame["split"])


def test_batches_of_the_full_release(tmp_path: Path) -> None:
    root = write_tree(tmp_path, 4, "CheXpert-v1.0")
    first = root / "CheXpert-v1.0 batch 1 (validate & csv)"
    (root / "CheXpert-v1.0" / "train").rename(root / "CheXpert-v1.0 batch 2 (train 1)")
    (root / "CheXpert-v1.0").rename(first)
    table = read_source("chexpert", root)
    assert len(table.frame) == 10
    assert "CheXpert-v1.0 batch 2 (train 1)/patient00003/study1/view1_frontal.jpg" in set(table.frame["source"])


@pytest.mark.parametrize("form", ["Path", "Study"])
def test_test_set_takes_over_when_its_labels_are_there(root: Path, form: str) -> None:
    image = write_image(root / "CheXpert/test/patient64741/study1/view1_frontal.jpg")
    name = "test_labels.csv" if form == "Path" else "groundtruth.csv"
    study = (
        "test/patient64741/study1/view1_frontal.jpg" if form == "Path" else "CheXpert-v1.0/test/patient64741/study1"
    )
    write_text(root / "CheXpert" / name, ",".join([form, *CHEXPERT_FINDINGS]), ",".join([study, *["1.0"] * 14]))
    table = read_source("chexpert", root)
    key = str(image.relative_to(root))
    assert column(table, "split")[key] == "test"
    assert (column(table, "view")[key], column(table, "label_Edema")[key]) == ("FRONTAL", 1)
    assert (table.frame["split"] == "test").sum() == 1
    assert (table.frame["split"] == "").sum() == 2  # valid.csv
    assert "500-study test set" in reasons(table)


def test_labels_of_the_test_set_without_its_images_change_nothing(root: Path) -> None:
    before = column(read_source("chexpert", root), "split")
    cells = ",".join(["test/patient64741/study1/view1_frontal.jpg", *["0.0"] * 14])
    write_text(root / "CheXpert/test_labels.csv", ",".join(["Path", *CHEXPERT_FINDINGS]), cells)
    table = read_source("chexpert", root)
    assert column(table, "split") == before
    assert table.left_out == [{"where": "test_labels.csv, row 1", "reason": "no such image"}]


def test_5x200_is_kept_out_of_training(root: Path) -> None:
    path = "CheXpert-v1.0/train/patient00007/study1/view1_frontal.jpg"
    write_text(root / "chexpert_5x200.csv", "Path,Edema", f"{path},1")
    frame = read_source("chexpert", root).frame
    assert list(frame.loc[frame["patient_id"] == "chexpert:patient00007", "split"]) == ["", ""]
    legacy = read_source("chexpert", root, split="legacy").frame.set_index("source")["split"]
    assert legacy["CheXpert-v1.0-small/train/patient00007/study1/view1_frontal.jpg"] == ""


def test_legacy_split_by_row_without_the_slip(root: Path) -> None:
    table = read_source("chexpert", root, split="legacy")
    frame = table.frame
    assert (frame.loc[frame["view"] == "LATERAL", "split"] == "").all()
    frontal = frame[frame["view"] != "LATERAL"]
    assert set(frontal["split"]) == {"train", "val", "test"}
    assert (frontal["split"] == "test").sum() == 1
    drawn = (frontal["split"] == "val").sum()
    assert 1 <= drawn <= 16  # 16 of 160 rows, without the lateral ones
    assert "legacy" in reasons(table)


def test_draw_does_not_depend_on_the_order_of_rows(root: Path) -> None:
    file = root / "CheXpert-v1.0-small/train.csv"
    for split in ("v1", "legacy"):
        before = column(read_source("chexpert", root, split=split), "split")
        header, *lines = file.read_text().splitlines()
        write_text(file, header, *reversed(lines))
        assert column(read_source("chexpert", root, split=split), "split") == before


def test_bad_rows_are_named_and_good_ones_survive(root: Path) -> None:
    file = root / "CheXpert-v1.0-small/train.csv"
    text = file.read_text()
    (root / "CheXpert-v1.0-small/train/patient00002/study1/view1_frontal.jpg").unlink()
    wrong = row(
        "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg", "Male", "3", "Frontal", "AP", Edema="2"
    )
    nowhere = row("somewhere.jpg", "Male", "3", "Frontal", "AP")
    file.write_text(text + wrong + "\n" + nowhere + "\n")
    table = read_source("chexpert", root)
    assert len(table.frame) == 161
    assert {entry["where"]: entry["reason"] for entry in table.left_out} == {
        "train.csv, row 162": "Path is 'somewhere.jpg'; …/patient00001/study1/view1_… is expected",
        "train.csv, row 161": "Edema is '2'; 1, 0, -1 or nothing is expected",
        "train.csv, row 3": "no such image",
    }


def test_missing_tables_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.csv"):
        read_source("chexpert", tmp_path)
    root = write_tree(tmp_path, 1)
    (root / "CheXpert-v1.0-small/valid.csv").unlink()
    with pytest.raises(UserError, match=r"valid\.csv: no such file"):
        read_source("chexpert", root)


@pytest.mark.filterwarnings("error")
def test_without_any_image_every_row_is_left_out_with_the_reason(root: Path) -> None:
    for part in ("train", "valid"):
        shutil.rmtree(root / "CheXpert-v1.0-small" / part)
    table = read_source("chexpert", root)
    assert len(table.frame) == 0
    assert {entry["reason"] for entry in table.left_out} == {"no such image"}
    assert len(table.left_out) == 162
