"""Object-CXR's tree, written as its archives unpack."""

import gzip
import json
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from sklearn.model_selection import train_test_split

from cmcgns.common.errors import UserError
from cmcgns.data.manifest import conform
from cmcgns.prepare.sources import get_source
from cmcgns.prepare.sources.base import SourceOptions, SourceTable
from cmcgns.prepare.sources.object_cxr import images_of, parse_annotation

V1, LEGACY = SourceOptions(), SourceOptions(split="legacy")
HEADER = "image_name,annotation\n"


def write_part(root: Path, part: str, table: str, names: list[str]) -> None:
    (root / part).mkdir()
    for name in names:
        Image.new("L", (40, 50), 90).save(root / part / name)
    (root / f"{part}.csv").write_bytes(table.encode())


def read(root: Path, options: SourceOptions = V1) -> SourceTable:
    return get_source("object-cxr").read(root, options)


def box(shape: str, x: float, y: float, width: float, height: float, *points: list[float]) -> dict[str, object]:
    sides = {"x": x, "y": y, "width": width, "height": height}
    return {"label": "Foreign Object"} | sides | {"shape": shape, "points": list(points)}


def test_the_official_tree_row_by_row(tmp_path: Path) -> None:
    shapes = "0 10 20 30 40;1 5 6 15 26;2 1 2 9 3 4 8 2 7"
    write_part(tmp_path, "train", f"{HEADER}00002.jpg,{shapes}\n00001.jpg,\n", ["00001.jpg", "00002.jpg"])
    write_part(tmp_path, "dev", f"{HEADER}08001.jpg,1 0 0 4 8\n", ["08001.jpg"])
    result = read(tmp_path)
    assert result.left_out == []
    assert result.notes == ["image-level split: the tables name no patients"]
    conform(result.frame.assign(image_path="images/a.jpg"), "manifest")
    found = [
        box("box", 10, 20, 20, 20, [10, 20], [30, 40]),
        box("ellipse", 5, 6, 10, 20, [5, 6], [15, 26]),
        box("polygon", 1, 2, 8, 6, [1, 2], [9, 3], [4, 8], [2, 7]),
    ]
    frame = result.frame.assign(boxes=result.frame["boxes"].map(json.loads))
    assert set(frame["split"][:2]) <= {"train", "val"}
    assert frame["split"][2] == "test"
    assert frame.drop(columns="split").to_dict("records") == [
        {
            "study_id": f"object-cxr:{name}",
            "patient_id": f"object-cxr:{name}",
            "dataset": "object-cxr",
            "view": "FRONTAL",
            "label_Foreign Object": int(bool(boxes)),
            "boxes": boxes,
            "source": f"{name}.jpg",
        }
        for name, boxes in (
            ("train/00002", found),
            ("train/00001", []),
            ("dev/08001", [box("ellipse", 0, 0, 4, 8, [0, 0], [4, 8])]),
        )
    ]


@pytest.mark.parametrize("options", [V1, LEGACY])
def test_the_organisers_test_set_has_no_split(tmp_path: Path, options: SourceOptions) -> None:
    for part, name in (("train", "1.jpg"), ("dev", "2.jpg"), ("test", "3.jpg")):
        write_part(tmp_path, part, f"{HEADER}{name},\n", [name])
    result = read(tmp_path, options)
    assert result.frame["split"].tolist()[1:] == ["test", ""]
    assert any("test.csv" in note for note in result.notes)


def test_packed_tables_windows_ends_and_names_with_a_path(tmp_path: Path) -> None:
    train = "\ufeffimage_path,annotation\r\n/data/train/1.jpg,0 1 2 3 4\r\n..\\train\\2.jpg, \r\n"
    write_part(tmp_path, "train", train, ["1.jpg", "2.jpg"])
    write_part(tmp_path, "dev", HEADER, [])
    (tmp_path / "dev.csv").unlink()
    (tmp_path / "dev.csv.gz").write_bytes(gzip.compress(HEADER.encode()))
    result = read(tmp_path)
    assert result.frame["source"].tolist() == ["train/1.jpg", "train/2.jpg"]
    assert result.frame["label_Foreign Object"].tolist() == [1, 0]
    assert result.left_out == []


def test_missing_files_and_files_without_a_row_are_left_out_with_the_reason(tmp_path: Path) -> None:
    write_part(tmp_path, "train", f"{HEADER}1.jpg,\n2.jpg,\n", ["1.jpg", "3.jpg"])
    write_part(tmp_path, "dev", HEADER, [])
    result = read(tmp_path)
    assert result.frame["source"].tolist() == ["train/1.jpg"]
    assert result.left_out == [
        {"where": "train/2.jpg", "reason": "no such file"},
        {"where": "train/3.jpg", "reason": "train.csv does not name it"},
    ]


def test_reversed_corners_are_put_in_order() -> None:
    assert parse_annotation("0 30 40 10 20") == parse_annotation("0 10 20 30 40")
    assert parse_annotation("1 30 20 10 40") == parse_annotation("1 10 20 30 40")


@pytest.mark.parametrize("annotation", ["", "  ", ";", " ; "])
def test_nothing_is_no_object(annotation: str) -> None:
    assert parse_annotation(annotation) == []


def test_fractions_and_spare_blanks_are_fine() -> None:
    assert parse_annotation(" 0  1.5 2 3 4 ; ") == [box("box", 1.5, 2, 1.5, 2, [1.5, 2], [3, 4])]


FAULTS = {
    "0 1 2 3": "box of 3 coordinates",
    "0 1 2 3 4 5": "box of 5 coordinates",
    "1": "ellipse of 0 coordinates",
    "2 1 2 3 4": "polygon of 4 coordinates",
    "2 1 2 3 4 5 6 7": "polygon of 7 coordinates",
    "3 1 2 3 4": "unknown shape '3'",
    "box 1 2 3 4": "unknown shape 'box'",
    "0 1 two 3 4": "no number",
    "0 nan 2 3 4": "no number",
    "0 1 2 inf 4": "no number",
    "2 1 2 3 4 5 -inf": "no number",
    "0 1 2 1 4": "without width or height",
    "1 1 2 3 2": "without width or height",
    "2 1 2 3 2 9 2": "without width or height",
    "0 1 2 3 4;0 5": "box of 1 coordinates",
    "0 1 2 3 4|1 5 6 7 8": "no number",
}


@pytest.mark.parametrize("annotation", FAULTS)
def test_a_bad_shape_takes_its_row_and_no_other(tmp_path: Path, annotation: str) -> None:
    with pytest.raises(UserError, match=FAULTS[annotation]):
        parse_annotation(annotation)
    table = f"{HEADER}1.jpg,0 1 2 3 4\n2.jpg,{annotation}\n3.jpg,\n"
    write_part(tmp_path, "train", table, ["1.jpg", "2.jpg", "3.jpg"])
    write_part(tmp_path, "dev", HEADER, [])
    result = read(tmp_path)
    assert result.frame["source"].tolist() == ["train/1.jpg", "train/3.jpg"]
    assert [left["where"] for left in result.left_out] == ["train.csv, row 2"]
    assert FAULTS[annotation] in result.left_out[0]["reason"]


@pytest.mark.parametrize(
    ("rows", "kept", "left"),
    [
        ("1.jpg,\n1.jpg,\n", ["train/1.jpg"], {"train.csv, row 2": "this image stands in an earlier row"}),
        (
            "1.jpg,\n1.jpg,0 1 2 3 4\n",
            [],
            {f"train.csv, row {row}": "the rows of this image disagree" for row in (1, 2)},
        ),
        ("1.jpg,\n,0 1 2 3 4\n", ["train/1.jpg"], {"train.csv, row 2": "empty image_name"}),
        ("1.jpg\n", ["train/1.jpg"], {}),
    ],
)
def test_rows_that_do_not_name_one_image(tmp_path: Path, rows: str, kept: list[str], left: dict[str, str]) -> None:
    write_part(tmp_path, "train", HEADER + rows, ["1.jpg"])
    write_part(tmp_path, "dev", HEADER, [])
    result = read(tmp_path)
    assert result.frame["source"].tolist() == kept
    assert {entry["where"]: entry["reason"] for entry in result.left_out} == left


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (None, "none of train.csv"),
        ("", "train.csv cannot be read"),
        ("image_name\n1.jpg\n", "missing column annotation"),
        ("image,annotation\n1.jpg,\n", "missing column image_name .found: image, annotation"),
        ("image_name,annotation,annotation\n", "'annotation' stands there twice"),
        (f"{HEADER}1.jpg,0 1 2 3 4,0 1 2 3 4\n", "cannot be read"),
    ],
)
def test_a_table_that_is_no_table_is_a_user_error(tmp_path: Path, table: str | None, words: str) -> None:
    write_part(tmp_path, "train", table or "", [])
    write_part(tmp_path, "dev", HEADER, [])
    if table is None:
        (tmp_path / "train.csv").unlink()
    with pytest.raises(UserError, match=words):
        read(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    for part in ("train", "dev"):
        (tmp_path / f"{part}.csv").write_text(HEADER)
    (tmp_path / "train").write_text("no folder")
    with pytest.raises(UserError, match="none of train/ is there"):
        read(tmp_path)


@pytest.mark.parametrize("options", [V1, LEGACY])
def test_tables_without_a_row_give_no_rows(tmp_path: Path, options: SourceOptions) -> None:
    for part in ("train", "dev"):
        write_part(tmp_path, part, HEADER, [])
    result = read(tmp_path, options)
    assert (len(result.frame), result.left_out) == (0, [])
    assert {"source", "split", "boxes", "label_Foreign Object", "patient_id"} <= set(result.frame)


def many_rows(count: int) -> pd.DataFrame:
    names = [f"{number:05}.jpg" for number in range(count)]
    shapes = ["0 1 2 3 4" if number % 2 else "" for number in range(count)]
    return pd.DataFrame({"image_name": names, "annotation": shapes}).sample(frac=1, random_state=3, ignore_index=True)


def test_v1_is_90_10_stratified_and_follows_the_seed() -> None:
    rows = many_rows(400)
    frame = images_of(rows, "train", "train.csv", V1).frame
    for label in (0, 1):
        splits = frame.loc[frame["label_Foreign Object"] == label, "split"].value_counts()
        assert splits.to_dict() == {"train": 180, "val": 20}
    turned = images_of(rows[::-1].reset_index(drop=True), "train", "train.csv", V1).frame
    assert turned.set_index("source")["split"].to_dict() == frame.set_index("source")["split"].to_dict()
    assert not images_of(rows, "train", "train.csv", SourceOptions(seed=1)).frame["split"].equals(frame["split"])


def test_legacy_is_the_published_draw_even_beside_bad_rows() -> None:
    rows = many_rows(333)
    rows.loc[5, "annotation"] = "9"
    train, val = train_test_split(rows["image_name"], test_size=0.1, random_state=0)
    frame = images_of(rows, "train", "train.csv", LEGACY).frame
    bad = f"train/{rows.loc[5, 'image_name']}"
    for name, part in (("train", train), ("val", val)):
        assert set(frame.loc[frame["split"] == name, "source"]) == set("train/" + part) - {bad}
