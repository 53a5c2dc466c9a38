import json
from pathlib import Path

import pandas as pd
import pytest

from cmcgns.check.run import fix, run_checks
from cmcgns.common.errors import UserError
from cmcgns.data.boxes import boxes_text
from cmcgns.data.manifest import read_manifest
from support.check import box, changed, rows, sha, write


def faulty(folder: Path) -> Path:
    frame = changed(rows(12), "split", {0: "valid"})
    frame = changed(frame, "patient_id", {1: "set:p11"})  # train and test
    frame = changed(frame, "sha256", {3: sha("set2"), 4: sha("set9")})  # train twice; train, test
    frame = changed(frame, "boxes", {
        5: boxes_text([box(10, 10, 20, 20), box(90, -20, 30, 50)]),
        6: boxes_text([box(300, 300, 20, 20)]),
        7: boxes_text([box(-30, 100, 50, 90)]),
    })  # fmt: skip
    return write(folder, changed(frame, "findings", {8: ""}))


def test_a_cleaned_manifest_has_no_error_and_says_what_is_gone(tmp_path: Path) -> None:
    folder = faulty(tmp_path)
    before = (folder / "manifest.parquet").read_bytes()
    cleaned = fix(folder, run_checks([folder], open_images=False))
    assert (folder / "manifest.parquet").read_bytes() == before
    frame = read_manifest(cleaned.path)
    assert frame["study_id"].tolist() == [f"set:s{number}" for number in (2, 5, 7, 8, 9, 10, 11)]
    assert cleaned.path == folder / "manifest.cleaned.parquet"
    assert (cleaned.rows, cleaned.clipped) == (7, 2)
    assert cleaned.left_out == {
        "unknown-split": 1,
        "patients-across-splits": 1,
        "same-file": 1,
        "same-file-across-splits": 1,
        "box-outside": 1,
    }
    again = run_checks([cleaned.path], open_images=False)
    assert {finding.rule for finding in again.findings} == {"empty-report"}


def test_boxes_are_clipped_and_their_other_fields_stay(tmp_path: Path) -> None:
    folder = faulty(tmp_path)
    frame = read_manifest(fix(folder, run_checks([folder], open_images=False)).path)
    boxes = dict(zip(frame["study_id"], frame["boxes"], strict=True))
    assert json.loads(boxes["set:s5"]) == [box(10, 10, 20, 20), box(90, 0, 10, 30)]
    assert json.loads(boxes["set:s7"]) == [box(0, 100, 20, 20)]


def test_the_account_names_every_row_and_reason(tmp_path: Path) -> None:
    folder = faulty(tmp_path)
    cleaned = fix(folder, run_checks([folder], open_images=False))
    account = json.loads(cleaned.account.read_text("utf-8"))
    assert cleaned.account == folder / "manifest.cleaned.json"
    assert (account["rows"], account["rows_kept"]) == (12, 7)
    assert [entry["row"] for entry in account["left_out"]] == [1, 2, 4, 5, 7]
    assert account["left_out"][0]["image_path"] == "images/0.png"
    assert account["left_out"][0]["reasons"][0].startswith("unknown-split: split 'valid'")
    assert account["boxes_clipped"] == [
        {"row": 6, "image_path": "images/5.png", "boxes": 1},
        {"row": 8, "image_path": "images/7.png", "boxes": 1},
    ]


def test_of_two_manifests_the_one_with_the_test_rows_keeps_them(tmp_path: Path) -> None:
    first = write(tmp_path / "a", rows(4))
    second = write(tmp_path / "b", changed(rows(4, "other"), "patient_id", {0: "set:p3"}))
    report = run_checks([first, second], open_images=False)
    assert fix(first, report).rows == 4
    assert fix(second, report).left_out == {"patients-across-splits": 1}


def test_images_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    folder = write(tmp_path, rows(), images=True)
    (folder / "images/2.png").write_bytes(b"broken")
    cleaned = fix(folder, run_checks([folder]))
    assert cleaned.left_out == {"unreadable-image": 1}
    assert run_checks([cleaned.path]).findings == ()


def test_what_is_refused(tmp_path: Path) -> None:
    folder, other = write(tmp_path / "a", rows()), write(tmp_path / "b", rows())
    report = run_checks([folder], open_images=False)
    with pytest.raises(UserError, match="was not checked"):
        fix(other, report)
    cleaned = fix(folder, report).path
    with pytest.raises(UserError, match="the original is never touched"):
        fix(cleaned, run_checks([cleaned], open_images=False))
    write(folder, pd.concat([rows(), rows(8).iloc[6:]]))
    with pytest.raises(UserError, match="check it again"):
        fix(folder, report)
