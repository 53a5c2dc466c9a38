import os
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image, ImageOps

from cmcgns.data.manifest import write_manifest
from support.check import changed, found, picture, rows, sha, write


def resave(source: Path, target: Path, quality: int = 50) -> None:
    with Image.open(source) as image:
        image.resize((90, 110)).save(target, "JPEG", quality=quality)


def test_a_resaved_picture_is_an_error_across_splits_and_a_warning_within(tmp_path: Path) -> None:
    folder = write(tmp_path, rows(8).drop(columns=["width", "height"]), images=True)
    resave(folder / "images/0.png", folder / "images/6.png")  # train and test
    resave(folder / "images/1.png", folder / "images/2.png")  # both train
    findings = found(folder, "near-duplicate", images=True)
    assert [(finding.severity, finding.rows, finding.drop) for finding in findings] == [
        ("error", (0, 6), (0,)),
        ("warning", (1, 2), ()),
    ]
    assert "test (1 row) and train (1 row)" in findings[0].message
    assert "images/0.png, images/6.png" in findings[0].message


@pytest.mark.parametrize("change", ["mirrored", "turned", "quarter", "cropped"])
def test_altered_copies_are_found_where_reports_are_the_same(change: str, tmp_path: Path) -> None:
    frame = rows(8).drop(columns=["width", "height"])
    altered = {
        "mirrored": ImageOps.mirror,
        "turned": lambda image: image.rotate(4, Image.Resampling.BICUBIC),
        "quarter": lambda image: image.transpose(Image.Transpose.ROTATE_90),
        "cropped": lambda image: ImageOps.crop(image, 5),
    }[change]
    folder = write(tmp_path, frame, images=True)
    with Image.open(folder / "images/0.png") as image:
        altered(image).save(folder / "images/6.png")
    if change != "cropped":
        assert found(folder, "near-duplicate", images=True) == []
    write(folder, changed(frame, "findings", {6: frame["findings"][0]}))
    (finding,) = found(folder, "near-duplicate", images=True)
    assert (finding.severity, finding.rows, finding.drop) == ("error", (0, 6), (0,))


def test_different_pictures_with_the_same_report_are_no_copies(tmp_path: Path) -> None:
    folder = write(tmp_path, rows(8).assign(findings="No effusion."), images=True)
    assert found(folder, "near-duplicate", images=True) == []


def test_across_manifests(tmp_path: Path) -> None:
    first = write(tmp_path / "a", rows(6).drop(columns=["width", "height"]), images=True)
    second = tmp_path / "b"
    (second / "images").mkdir(parents=True)
    for number in range(4):
        Image.fromarray(picture(100 + number)).save(second / f"images/{number}.png")
    resave(first / "images/5.png", second / "images/1.png")
    write(second, rows(4, "other").drop(columns=["width", "height"]))
    findings = found([first, second], "near-duplicate", images=True)
    assert [(finding.manifest.parent.name, finding.rows, finding.drop) for finding in findings] == [
        ("a", (5,), ()),
        ("b", (1,), (1,)),
    ]


def test_files_that_are_the_same_are_left_to_the_rule_about_files(tmp_path: Path) -> None:
    folder = write(tmp_path, changed(rows(4), "sha256", {1: sha("set0")}), images=True)
    (folder / "images/1.png").write_bytes((folder / "images/0.png").read_bytes())
    assert found(folder, "near-duplicate", images=True) == []
    assert [finding.rows for finding in found(folder, "same-file")] == [(0, 1)]


def test_constant_images_are_not_each_others_duplicates(tmp_path: Path) -> None:
    folder = write(tmp_path, rows(4), images=True)
    for number in range(3):
        Image.new("L", (100, 120), number).save(folder / f"images/{number}.png")
    assert found(folder, "near-duplicate", images=True) == []


def nih_manifest(folder: Path, table: Path) -> Path:
    """Rows of a development table whose images stay where they are."""
    rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    columns = {
        "image_path": [str(table.parent / path) for path in rows["image_path"]],
        "study_id": "nih:" + rows["nih_index"],
        "patient_id": "nih:" + rows["patient_id"],
        "dataset": "nih",
        "view": rows["view"],
        "split": rows["split"],
    }
    folder.mkdir()
    write_manifest(pd.DataFrame(columns), folder / "manifest.parquet")
    return folder


@pytest.mark.real_data
@pytest.mark.slow
def test_real_radiographs_that_two_data_sets_share_are_found_and_no_others(tmp_path: Path) -> None:
    data = os.environ.get("CMCGNS_DEV_DATA")
    if not data:
        pytest.skip("CMCGNS_DEV_DATA is not set")
    nih = nih_manifest(tmp_path / "nih", Path(data) / "nih/labels.csv")
    rsna = nih_manifest(tmp_path / "rsna", Path(data) / "rsna_boxes/images.csv")
    findings = found([nih, rsna], "near-duplicate", images=True)
    assert {finding.severity for finding in findings} == {"warning"}
    tables = {folder / "manifest.parquet": pd.read_parquet(folder / "manifest.parquet") for folder in (nih, rsna)}
    groups: dict[str, set[tuple[str, str]]] = {}
    for finding in findings:
        for row in finding.rows:
            entry = (finding.manifest.parent.name, str(tables[finding.manifest]["study_id"].iloc[row]))
            groups.setdefault(finding.message, set()).add(entry)
    shared = [group for group in groups.values() if {manifest for manifest, _ in group} == {"nih", "rsna"}]
    assert len(shared) == 276
    others = {frozenset(study for _, study in group) for group in groups.values()}
    # Seen by eye: NIH has this picture twice.
    assert {group for group in others if len(group) > 1} == {
        frozenset({"nih:00002658_001.png", "nih:00002658_002.png"})
    }
