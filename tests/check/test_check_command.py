"""`cmcgns check` ends with 1 if there are errors, writes what it found, and cleans if asked."""

import json

from typer.testing import CliRunner

from cmcgns.cli.app import app
from cmcgns.data.manifest import read_manifest
from cmcgns.data.pairs.rows import read_pairs
from cmcgns.settings.config import DataSettings
from support.check import changed, rows, write


def call(*words):
    return CliRunner().invoke(app, ["check", *map(str, words)])


def test_a_clean_manifest_ends_with_0(tmp_path):
    done = call(write(tmp_path / "a", rows(), images=True))
    assert done.exit_code == 0, done.output
    assert "0 errors" in done.output


def test_errors_end_with_1_and_are_written_and_cleaned(tmp_path):
    folder = write(tmp_path / "a", changed(rows(), "patient_id", {0: "set:p5"}), images=True)
    done = call(folder, "--out", tmp_path / "out", "--fix")
    assert done.exit_code == 1
    assert "patients-across-splits" in done.output
    written = json.loads((tmp_path / "out" / "check.json").read_text())
    assert written["exit_code"] == 1
    assert "patients-across-splits" in (tmp_path / "out" / "check.html").read_text()
    cleaned = folder / "manifest.cleaned.parquet"
    assert read_manifest(cleaned)["study_id"].tolist() == [f"set:s{number}" for number in range(1, 6)]
    assert len(read_manifest(folder)) == 6, "the original stays"
    assert call(cleaned).exit_code == 0
    assert len(read_pairs(cleaned, DataSettings()).frame) == 5, "pretraining opens it"


def test_names_of_folders_are_no_markup(tmp_path):
    folder = write(tmp_path / "a[red]b", rows())
    done = call(folder, "--no-images", "--out", tmp_path / "out[bold]", "--fix")
    said = done.output.replace("\n", "")  # long paths are folded
    for name in (f"{tmp_path}/out[bold]/check.html", f"{folder}/manifest.cleaned.parquet"):
        assert name in said


def test_rules_can_be_listed_skipped_and_images_left_closed(tmp_path):
    folder = write(tmp_path / "a", changed(rows(), "patient_id", {0: "set:p5"}))  # no image is there
    assert "near-duplicate" in call("--list-rules").output
    assert call(folder, "--no-images", "--skip", "patients-across-splits").exit_code == 0


def test_a_call_without_a_folder_says_what_is_missing():
    done = call()
    assert done.exit_code != 0
    assert "name at least one prepared folder" in str(done.exception)
