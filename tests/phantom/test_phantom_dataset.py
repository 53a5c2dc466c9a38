"""A written dataset is complete, the same for any number of workers, and never overwritten."""

import hashlib
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cmcgns.check.run import run_checks
from cmcgns.common.errors import UserError
from cmcgns.data.manifest import NUMBERS, TEXT
from cmcgns.phantom import FINDINGS, make_study, write_dataset

COUNTS = {"train": 70, "val": 5, "test": 13}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("phantom") / "data"
    return out, pd.read_parquet(write_dataset(out, COUNTS, seed=4, size=48))


def test_counts_are_exact_and_no_patient_is_in_two_splits(written):
    _, table = written
    assert table["split"].value_counts().to_dict() == COUNTS
    assert table["study_id"].is_unique
    assert table["patient_id"].nunique() < len(table)
    assert (table.groupby("patient_id")["split"].nunique() == 1).all()


def test_manifest_has_the_agreed_columns(written):
    labels = [f"label_{label}" for label in FINDINGS]
    assert set(written[1].columns) == {*TEXT, *NUMBERS, *labels, "finding_map_path"}
    assert set(written[1]["dataset"]) == {"phantom"}
    for name in ("study_id", "patient_id"):
        assert written[1][name].str.match("^phantom:[^:]+$").all()
    assert (written[1][["width", "height", "original_width", "original_height"]] == 48).all(axis=None)


def test_rows_describe_the_files(written):
    out, table = written
    for row in table.to_dict("records"):
        path = out / row["image_path"]
        study = make_study(4, int(row["study_id"].rsplit("-", 1)[1]), 48)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row["sha256"]
        with Image.open(path) as image:
            assert image.mode == "L"
            assert np.array_equal(np.asarray(image), study.image)
        assert (row["findings"], row["impression"]) == (study.findings_text, study.impression)
        assert {label: row[f"label_{label}"] for label in FINDINGS} == study.labels
        boxes = json.loads(row["boxes"])
        assert [(b["label"], b["x"], b["y"], b["width"], b["height"]) for b in boxes] == [
            (finding.label, *finding.box) for finding in study.findings
        ]
        assert bool(boxes) == bool(row["mask_path"])
        if boxes:
            assert set(boxes[0]) == {
                "label",
                "side",
                "place",
                "degree",
                "certain",
                "x",
                "y",
                "width",
                "height",
            }
            with Image.open(out / row["mask_path"]) as mask, Image.open(out / row["finding_map_path"]) as finding_map:
                assert np.array_equal(np.asarray(mask), np.where(study.mask > 0, 255, 0))
                assert np.array_equal(np.asarray(finding_map), study.mask)


def test_nothing_else_is_left_behind(written):
    out, table = written
    assert sorted(path.name for path in out.iterdir()) == ["finding_maps", "images", "manifest.parquet", "masks"]
    assert len(list((out / "images").iterdir())) == len(table)
    for folder in ("masks", "finding_maps"):
        assert len(list((out / folder).iterdir())) == (table["mask_path"] != "").sum()


def test_its_own_check_finds_nothing_to_correct(written, tmp_path):
    """A dataset that this package writes fits the contract that this package checks."""
    folder = shutil.copytree(written[0], tmp_path / "copy")  # the check keeps what it measured beside the manifest
    report = run_checks([folder])
    assert report.exit_code == 0
    assert "ids-without-dataset" not in report.by_rule


def test_workers_do_not_change_a_byte(written, tmp_path):
    out, _ = written
    write_dataset(tmp_path, COUNTS, seed=4, size=48, workers=2)
    files = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert all((out / name).read_bytes() == (tmp_path / name).read_bytes() for name in files)


def test_the_plain_level_stays_as_it_was_to_the_bit(tmp_path):
    """Hashes of before the hard level came; a processor that rounds otherwise would need others for the pixels."""
    table = pd.read_parquet(write_dataset(tmp_path, {"train": 14, "val": 3, "test": 5}, seed=3, size=64))
    pixels = hashlib.sha256()
    for path in sorted(tmp_path.rglob("*.png")):
        with Image.open(path) as picture:
            pixels.update(np.asarray(picture).tobytes())
    assert pixels.hexdigest() == "d9031f1b61f5973fa2697ae582334f9f525b5c43175ce449f895316d3ab38a6f"
    text = hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()
    assert text == "2e595251097feb00176d10b7456b6d4cbb8f9e8176b461114139c93bf3828e59"


def test_an_existing_manifest_is_not_overwritten(written):
    out, _ = written
    before = (out / "manifest.parquet").read_bytes()
    with pytest.raises(UserError, match=r"manifest\.parquet"):
        write_dataset(out, {"train": 1})
    assert (out / "manifest.parquet").read_bytes() == before


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        ({"train": -3}, {}, "'train'.*-3"),
        ({}, {}, "no study"),
        ({"train": 1}, {"size": 8}, "size 8"),
        ({"train": 1}, {"workers": 0}, "workers is 0"),
    ],
)
def test_bad_requests_name_the_value_and_write_nothing(tmp_path, counts, options, message):
    with pytest.raises(UserError, match=message):
        write_dataset(tmp_path / "new", counts, **options)
    assert not (tmp_path / "new").exists()
