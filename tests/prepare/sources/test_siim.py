"""SIIM's tree, written as the challenge lays it out."""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import train_test_split

from cmcgns.common.errors import UserError
from cmcgns.data.images.masks import decode_rle, encode_rle, mask_from_source
from cmcgns.data.manifest import conform
from cmcgns.data.tables import read_table
from cmcgns.prepare.sources import get_source
from cmcgns.prepare.sources.base import SourceOptions, SourceTable
from cmcgns.prepare.sources.cells import published_share, published_splits
from cmcgns.prepare.sources.siim import join_rows
from support.trees import write_dicom

UID = "1.2.276.0.7230010.3.1.{}.8323329.{}.1517875201.850819"
V1, LEGACY = SourceOptions(), SourceOptions(split="legacy")


def image_id(number: int) -> str:
    return UID.format(4, number)


def write_tree(
    root: Path, table: str, images: range, name: str = "train-rle.csv", folder: str = "dicom-images-train"
) -> None:
    """The challenge's folders: a study and a series above every image."""
    for number in images:
        write_dicom(root / folder / UID.format(2, number) / UID.format(3, number) / f"{image_id(number)}.dcm")
    (root / name).write_bytes(table.encode())


def code_of(top: int, left: int) -> str:
    mask = np.zeros((1024, 1024), dtype=bool)
    mask[top : top + 20, left : left + 30] = True
    return encode_rle(mask)


def source_file(number: int, folder: str = "dicom-images-train") -> str:
    return f"{folder}/{UID.format(2, number)}/{UID.format(3, number)}/{image_id(number)}.dcm"


def read(root: Path, options: SourceOptions = V1) -> SourceTable:
    return get_source("siim").read(root, options)


@pytest.mark.parametrize("none", ["-1", " -1"])
def test_the_official_tree_row_by_row(tmp_path: Path, none: str) -> None:
    one, two = code_of(100, 200), code_of(500, 600)
    table = f"ImageId, EncodedPixels\n{image_id(2)},{one}\n{image_id(1)},{none}\n{image_id(2)}, {two}\n"
    write_tree(tmp_path, table, range(1, 3))
    result = read(tmp_path)
    assert result.left_out == []
    assert result.frame.drop(columns=["split", "mask"]).to_dict("records") == [
        {
            "study_id": f"siim:{image_id(number)}",
            "patient_id": f"siim:{image_id(number)}",
            "dataset": "siim",
            "view": "FRONTAL",
            "label_Pneumothorax": number - 1,
            "source": source_file(number),
        }
        for number in (1, 2)
    ]
    masks = [json.loads(cell) for cell in result.frame["mask"]]
    assert masks[0] == {"rle": [], "width": 1024, "height": 1024}
    assert masks[1] == {"rle": [one, two], "width": 1024, "height": 1024}
    expected = decode_rle([one], 1024, 1024) | decode_rle([two], 1024, 1024)
    assert np.array_equal(mask_from_source(masks[1], tmp_path), expected)
    assert any(note.startswith("image-level split") for note in result.notes)
    conform(result.frame.assign(image_path="images/a.jpg"), "manifest")


def test_the_later_release_and_its_second_folder(tmp_path: Path) -> None:
    write_tree(tmp_path, f"ImageId, EncodedPixels\n{image_id(1)},-1\n", range(1, 2))
    later = f"ImageId,EncodedPixels\r\n{image_id(1)},-1\r\n{image_id(7)},{code_of(1, 2)}\r\n"
    write_tree(tmp_path, "\ufeff" + later, range(7, 8), "stage_2_train.csv", "dicom-images-test")
    result = read(tmp_path)
    assert result.frame["source"].tolist() == [source_file(1), source_file(7, "dicom-images-test")]
    assert result.frame["label_Pneumothorax"].tolist() == [0, 1]
    assert result.left_out == []


def test_a_packed_table_and_flat_folders_are_fine(tmp_path: Path) -> None:
    (tmp_path / "siim").mkdir()
    table = f"ImageId,EncodedPixels\n{image_id(1)},-1\n".encode()
    (tmp_path / "siim" / "train-rle.csv.gz").write_bytes(gzip.compress(table))
    write_dicom(tmp_path / "siim" / "images" / f"{image_id(1)}.dcm")
    assert read(tmp_path).frame["source"].tolist() == [f"siim/images/{image_id(1)}.dcm"]


def test_images_without_row_or_file_are_left_out_with_the_reason(tmp_path: Path) -> None:
    table = f"ImageId, EncodedPixels\n{image_id(1)},-1\n{image_id(2)},-1\n{image_id(3)},-1\n"
    write_tree(tmp_path, table, range(1, 3))
    write_dicom(tmp_path / "dicom-images-test" / f"{image_id(8)}.dcm")
    write_dicom(tmp_path / "dicom-images-test" / f"{image_id(1)}.dcm")
    result = read(tmp_path)
    assert result.frame["study_id"].tolist() == [f"siim:{image_id(1)}", f"siim:{image_id(2)}"]
    assert result.left_out == [
        {"where": f"train-rle.csv, image {image_id(3)}", "reason": "no DICOM file of this name"},
        {"where": f"dicom-images-test/{image_id(8)}.dcm", "reason": "train-rle.csv does not name it"},
        {"where": source_file(1), "reason": "a second file of the same image"},
    ]


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    write_tree(tmp_path / "root", f"ImageId, EncodedPixels\n{image_id(1)},-1\n{image_id(2)},-1\n", range(1, 2))
    write_dicom(tmp_path / f"{image_id(2)}.dcm")
    (tmp_path / "root" / f"{image_id(2)}.dcm").symlink_to(tmp_path / f"{image_id(2)}.dcm")
    result = read(tmp_path / "root")
    assert result.frame["study_id"].tolist() == [f"siim:{image_id(1)}"]
    assert result.left_out[0]["where"] == f"{image_id(2)}.dcm"
    assert "link" in result.left_out[0]["reason"]


# Rows 1 and 2 are good (images 1 and 2); the others must go, and only they.
FAULTS = {
    "odd number of values": (f"{image_id(3)},5 2 9\n", ["odd number"]),
    "negative gap": (f"{image_id(3)},5 2 -9 1\n", ["negative"]),
    "words": (f"{image_id(3)},1 two\n", ["'two'"]),
    "fraction": (f"{image_id(3)},1 2.5\n", ["'2.5'"]),
    "past the end": (f"{image_id(3)},1048570 7\n", ["past the last pixel"]),
    "huge values": (f"{image_id(3)},9223372036854775807 9223372036854775807\n", ["EncodedPixels: "]),
    "empty id": (",5 2\n", ["empty ImageId"]),
    "mask and none": (f"{image_id(3)},5 2\n{image_id(3)},-1\n", ["one without", "one without"]),
    "one bad of two": (f"{image_id(3)},5 2\n{image_id(3)},5\n", ["another row", "odd number"]),
    "not a number": (f"{image_id(3)},nan\n", ["'nan'"]),
    "two markers": (f"{image_id(3)},-1 -1\n", ["negative"]),
    "NUL bytes": (f"{image_id(3)},5\0 2\n", ["NUL bytes"]),
    "absolute json": (f'{image_id(3)},"[1, 2]"\n', ["'\\[1,'"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_rows_go_with_a_reason_and_good_ones_stay(tmp_path: Path, fault: str) -> None:
    rows, reasons = FAULTS[fault]
    table = f"ImageId, EncodedPixels\n{image_id(1)},-1\n{image_id(2)},{code_of(3, 4)}\n{rows}"
    write_tree(tmp_path, table, range(1, 4) if image_id(3) in rows else range(1, 3))
    result = read(tmp_path)
    assert result.frame["study_id"].tolist() == [f"siim:{image_id(1)}", f"siim:{image_id(2)}"]
    left = sorted(result.left_out, key=lambda entry: entry["where"])
    assert [entry["where"] for entry in left] == [f"train-rle.csv, row {3 + place}" for place in range(len(reasons))]
    for entry, words in zip(left, reasons, strict=True):
        with pytest.raises(UserError, match=words):
            raise UserError(entry["reason"])


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (None, "none of .*train-rle.csv"),
        (b"", "train-rle.csv cannot be read"),
        (b"ImageId, Encoded\na,-1\n", "missing column EncodedPixels"),
        (b"ImageId, EncodedPixels,EncodedPixels\na,-1,-1\n", "'EncodedPixels' stands there twice"),
        (b"ImageId, EncodedPixels\na,-1,5,6\n", "cannot be read"),
        (b"ImageId, EncodedPixels\n\xff\xfe,-1\n", "cannot be read"),
        (b"ImageId, EncodedPixels\na,-1\n", "no .dcm file"),
    ],
)
def test_a_table_that_is_no_table_is_a_user_error(tmp_path: Path, table: bytes | None, words: str) -> None:
    if table is not None:
        (tmp_path / "train-rle.csv").write_bytes(table)
    with pytest.raises(UserError, match=words):
        read(tmp_path)


@pytest.mark.parametrize("rows", ["", f"{image_id(1)},5\n"])
@pytest.mark.parametrize("options", [V1, LEGACY])
def test_a_table_without_a_good_row_gives_no_rows(tmp_path: Path, rows: str, options: SourceOptions) -> None:
    write_tree(tmp_path, "ImageId, EncodedPixels\n" + rows, range(1, 2))
    result = read(tmp_path, options)
    assert len(result.frame) == 0
    assert len(result.left_out) == 1
    assert {"source", "split", "mask", "label_Pneumothorax"} <= set(result.frame)


def many_rows(images: int) -> pd.DataFrame:
    """Every third image positive, every ninth with three masks, in an order that is not sorted."""
    rows = [
        (f"id{n:04}", "5 2" if n % 3 == 0 else "-1") for n in range(images) for _ in range(3 if n % 9 == 0 else 1)
    ]
    return pd.DataFrame(rows, columns=["ImageId", "EncodedPixels"]).sample(frac=1, random_state=3, ignore_index=True)


def test_v1_is_stratified_70_15_15_follows_the_seed_and_not_the_order_of_rows() -> None:
    rows = many_rows(600)
    frame = join_rows(rows, "t.csv", V1).frame
    assert len(frame) == 600
    for label, count in ((1, 200), (0, 400)):
        splits = frame.loc[frame["label_Pneumothorax"] == label, "split"].value_counts()
        assert splits.to_dict() == {"train": count * 0.7, "val": count * 0.15, "test": count * 0.15}
    assert join_rows(rows[::-1].reset_index(drop=True), "t.csv", V1).frame["split"].equals(frame["split"])
    assert not join_rows(rows, "t.csv", SourceOptions(seed=1)).frame["split"].equals(frame["split"])


def test_the_split_does_not_depend_on_the_files_that_are_there(tmp_path: Path) -> None:
    table = "ImageId, EncodedPixels\n" + "".join(f"{image_id(number)},-1\n" for number in range(20))
    write_tree(tmp_path, table, range(20))
    whole = read(tmp_path).frame.set_index("study_id")["split"]
    (tmp_path / source_file(4)).unlink()
    part = read(tmp_path).frame.set_index("study_id")["split"]
    assert part.equals(whole.drop(f"siim:{image_id(4)}"))


def test_legacy_is_the_published_draw_of_rows_without_its_leak() -> None:
    rows = many_rows(300)
    train, rest = train_test_split(rows, test_size=0.15 * 2, random_state=0)
    test, val = train_test_split(rest, test_size=0.5, random_state=0)
    published = pd.concat(
        [part.assign(split=name) for name, part in (("train", train), ("val", val), ("test", test))]
    )
    leaks = published.groupby("ImageId")["split"].nunique() > 1
    assert leaks.any()  # what the published program did
    result = join_rows(rows, "t.csv", LEGACY)
    ours = result.frame.assign(image=result.frame["study_id"].str[5:]).set_index("image")["split"]
    expected = published.sort_index().groupby("ImageId")["split"].first()
    assert ours.sort_index().to_dict() == expected.to_dict()
    assert any("legacy split" in note for note in result.notes)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 10, 101, 26_684])
@pytest.mark.parametrize("held_out", [0.3, 0.4])
def test_published_splits_are_those_of_scikit_learn(count: int, held_out: float) -> None:
    ours = published_splits(count, held_out)
    if count >= 7:
        train, rest = train_test_split(np.arange(count), test_size=held_out, random_state=0)
        test, val = train_test_split(rest, test_size=0.5, random_state=0)
        for name, part in (("train", train), ("val", val), ("test", test)):
            assert set(np.flatnonzero(ours == name)) == set(part)
        assert set(published_share(count, 0.1)) == set(
            train_test_split(range(count), test_size=0.1, random_state=0)[1]
        )
    assert len(ours) == count


@pytest.mark.real_data
@pytest.mark.skipif("CMCGNS_DEV_DATA" not in os.environ, reason="needs the development data")
def test_the_genuine_table_gives_12047_images_2669_positive(tmp_path: Path) -> None:
    genuine = Path(os.environ["CMCGNS_DEV_DATA"]) / "siim_train_rle.csv.gz"
    rows = read_table(genuine, ("ImageId", "EncodedPixels"))
    (tmp_path / "train-rle.csv.gz").symlink_to(genuine)
    (tmp_path / "dicom-images-train").mkdir()
    for image in rows["ImageId"].unique():
        (tmp_path / "dicom-images-train" / f"{image}.dcm").touch()
    result = read(tmp_path)
    assert [left["where"] for left in result.left_out] == ["train-rle.csv.gz"]  # a link, here only
    assert len(result.frame) == 12_047
    for frame in (result.frame, join_rows(rows, "table", LEGACY).frame):
        assert frame["study_id"].nunique() == len(frame) == 12_047
        assert frame["label_Pneumothorax"].sum() == 2_669
        codes = [json.loads(cell)["rle"] for cell in frame["mask"]]
        assert sum(map(len, codes)) == 3_576
        assert [bool(found) for found in codes] == (frame["label_Pneumothorax"] == 1).tolist()
        shares = frame["split"].value_counts(normalize=True)
        assert shares.to_dict() == pytest.approx({"train": 0.7, "val": 0.15, "test": 0.15}, abs=0.002)
