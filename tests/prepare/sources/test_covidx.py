"""COVIDx: list files of its versions."""

from pathlib import Path

import pytest

from cmcgns.common.errors import UserError
from cmcgns.data.manifest import read_manifest
from support.trees import column, manifest_of, read_source, reasons, write_image, write_text


def write_list(root: Path, name: str, *lines: str) -> None:
    """The list, and the images it names (the file name is given after a bar)."""
    part = name.partition("_")[0].removesuffix(".txt")
    texts = []
    for line in lines:
        text, _, file = line.partition("|")
        texts.append(text)
        write_image(root / part / (file or text.split()[1]))
    write_text(root / name, *texts)


def three_classes(root: Path, patients: int = 20) -> Path:
    kinds = ("normal rsna", "pneumonia cohen", "COVID-19 sirm")
    lines = [f"{n} {n}-{i}.png {kinds[n % 3]}" for n in range(patients) for i in range(2)]
    write_list(root, "train_COVIDx9A.txt", *lines)
    write_list(root, "test_COVIDx8A.txt", "900 900.png COVID-19 sirm", "901 901.png normal rsna")
    return root


def test_three_classes_are_one_hot(tmp_path: Path) -> None:
    table = read_source("covidx", three_classes(tmp_path / "covidx"))
    labels = [f"label_{name}" for name in ("Normal", "Pneumonia", "COVID-19")]
    assert (table.frame[labels].sum(axis=1) == 1).all()
    assert column(table, "label_Pneumonia")["train/1-0.png"] == 1
    assert column(table, "patient_id")["train/2-0.png"] == "covidx:sirm/2"
    assert column(table, "patient_id")["train/0-0.png"] == "rsna:0"  # the challenge's own ids
    assert column(table, "split")["test/900.png"] == "test"
    assert len(read_manifest(manifest_of(table, tmp_path / "manifest.parquet"))) == 42


def test_two_classes_have_one_label(tmp_path: Path) -> None:
    write_list(tmp_path, "train.txt", "A1 a.png positive ricord", "A2 b.png negative rsna")
    write_list(tmp_path, "test.txt", "A3 c.png negative bimcv")
    frame = read_source("covidx", tmp_path).frame
    assert [name for name in frame if name.startswith("label_")] == ["label_COVID-19"]
    assert list(frame["label_COVID-19"]) == [1, 0, 0]


def test_blanks_in_patients_and_files_and_lists_without_source(tmp_path: Path) -> None:
    write_list(
        tmp_path,
        "train.txt",
        "COVID-19 (12) COVID-19 (12).png COVID-19 sirm|COVID-19 (12).png",
        "7 chest film 3.jpeg pneumonia|chest film 3.jpeg",
        "Mr X normal scan.png normal|normal scan.png",
        "8 SARS-10.1148rg-day9.jpeg pneumonia",
    )
    write_list(tmp_path, "test.txt", "9 z.png normal")
    table = read_source("covidx", tmp_path)
    assert not table.left_out
    assert column(table, "patient_id") == {
        "train/COVID-19 (12).png": "covidx:sirm/COVID-19 (12)",
        "train/chest film 3.jpeg": "covidx:7",
        "train/normal scan.png": "covidx:Mr X",
        "train/SARS-10.1148rg-day9.jpeg": "covidx:8",
        "test/z.png": "covidx:9",
    }


def test_v1_by_patient_and_legacy_by_row(tmp_path: Path) -> None:
    table = read_source("covidx", three_classes(tmp_path))
    assert (table.frame.groupby("patient_id")["split"].nunique() == 1).all()
    assert table.frame["split"].value_counts().to_dict() == {"train": 32, "val": 8, "test": 2}
    legacy = read_source("covidx", tmp_path, split="legacy")
    assert legacy.frame["split"].value_counts().to_dict() == {"train": 32, "val": 8, "test": 2}
    assert (legacy.frame.groupby("patient_id")["split"].nunique() > 1).any()


def test_patients_of_two_lists_leave_training(tmp_path: Path) -> None:
    write_list(tmp_path, "train.txt", "1 a.png negative x", "2 b.png negative x", "3 c.png negative x")
    write_list(tmp_path, "val.txt", "2 d.png positive x", "4 e.png positive x")
    write_list(tmp_path, "test.txt", "3 f.png positive x", "4 g.png positive x")
    expected = {"a": "train", "b": "", "c": "", "d": "val", "e": "", "f": "test", "g": "test"}
    table = read_source("covidx", tmp_path)
    assert {Path(source).stem: split for source, split in column(table, "split").items()} == expected
    assert "3 rows of patients in two lists" in reasons(table)
    legacy = read_source("covidx", tmp_path, split="legacy").frame
    assert list(legacy["split"]) == ["train"] * 3 + ["test"] * 2 + ["val"] * 2


def test_bad_lines_are_named(tmp_path: Path) -> None:
    write_list(tmp_path, "train.txt", "1 a.png negative x", "2 b.png negative x")
    write_list(tmp_path, "test.txt", "3 f.png positive x")
    content = (tmp_path / "train.txt").read_bytes()
    more = b"4 c.png maybe x\r\nalone.png negative\r\n5 \0.png negative x\r\n6 gone.png negative x\r\n"
    (tmp_path / "train.txt").write_bytes(b"\xef\xbb\xbf" + content + more)
    table = read_source("covidx", tmp_path)
    text = reasons(table)
    assert "train.txt, line 3: no class (" in text
    assert "train.txt, line 4: line is not `patient file class source`" in text
    assert "train.txt, line 5: NUL bytes" in text
    assert "train.txt, line 6: no such image" in text
    assert len(table.frame) == 3


def test_lists_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no train list"):
        read_source("covidx", tmp_path)
    write_list(tmp_path, "train_COVIDx8A.txt", "1 a.png normal x")
    with pytest.raises(UserError, match="no test list"):
        read_source("covidx", tmp_path)
    write_list(tmp_path, "train_COVIDx8B.txt", "1 a.png positive x")
    with pytest.raises(UserError, match="keep those of one version"):
        read_source("covidx", tmp_path)
    (tmp_path / "train_COVIDx8B.txt").unlink()
    write_text(tmp_path / "test_COVIDx8A.txt", "")
    with pytest.raises(UserError, match=r"test_COVIDx8A\.txt cannot be read: it is empty"):
        read_source("covidx", tmp_path)
