"""`cmcgns phantom`: synthetic studies, and trees in the public datasets' layouts."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

import cmcgns
from cmcgns.cli.app import app
from cmcgns.common.errors import UserError
from cmcgns.data.manifest import read_manifest
from cmcgns.phantom import write_dataset
from cmcgns.phantom.trees import tree_names, write_tree


def phantom(*words: object) -> Any:
    return CliRunner().invoke(app, ["phantom", *map(str, words)], catch_exceptions=False)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_studies_are_a_prepared_dataset(tmp_path: Path) -> None:
    counts = ("--train", 5, "--val", 2, "--test", 3, "--size", 40, "--seed", 7)
    answer = phantom("studies", "--out", tmp_path / "verb", *counts, "--workers", 1)
    assert (answer.exit_code, answer.output) == (0, f"written: {tmp_path / 'verb' / 'manifest.parquet'}\n")
    frame = read_manifest(tmp_path / "verb")
    assert frame["split"].value_counts().to_dict() == {"train": 5, "val": 2, "test": 3}
    assert set(frame["width"]) == {40}
    write_dataset(tmp_path / "function", {"train": 5, "val": 2, "test": 3}, seed=7, size=40)
    assert content(tmp_path / "verb") == content(tmp_path / "function")


def test_hard_studies_have_findings_of_their_own(tmp_path: Path) -> None:
    counts = ("--train", 3, "--val", 0, "--test", 2, "--size", 40, "--workers", 1)
    answer = phantom("studies", "--level", "hard", "--out", tmp_path, *counts)
    assert (answer.exit_code, answer.output) == (0, f"written: {tmp_path / 'manifest.parquet'}\n")
    assert {"label_Hernia", "label_Lung Cavity"} < set(read_manifest(tmp_path).columns)


def test_a_split_may_be_left_out(tmp_path: Path) -> None:
    phantom("studies", "--out", tmp_path, "--train", 0, "--val", 0, "--test", 4, "--size", 32, "--workers", 1)
    assert pd.read_parquet(tmp_path / "manifest.parquet")["split"].tolist() == ["test"] * 4


def test_a_tree_is_what_prepare_takes(tmp_path: Path) -> None:
    answer = phantom("tree", "openi", "--out", tmp_path / "verb", "--studies", 8, "--size", 40, "--seed", 3)
    assert (answer.exit_code, answer.output) == (0, f"written: {tmp_path / 'verb'}\n")
    write_tree("openi", tmp_path / "function", 8, seed=3, size=40)
    assert content(tmp_path / "verb") == content(tmp_path / "function")
    words = ["prepare", "openi", "--root", str(tmp_path / "verb"), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert len(read_manifest(tmp_path / "out")) >= 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("studies", "--train", -1), "split 'train' asks for -1"),
        (("studies", "--size", 8), "size 8 is too small"),
        (("tree", "opni"), "Did you mean openi?"),
        (("tree", "rsna", "--studies", 3), "take 8 or more"),
    ],
)
def test_bad_input_is_refused(tmp_path: Path, words: tuple[object, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        phantom(*words, "--out", tmp_path / "out")


def test_help_names_the_trees() -> None:
    text = phantom("tree", "--help").output
    assert all(name in text for name in tree_names()[:4])


def test_the_package_is_a_program() -> None:
    done = subprocess.run([sys.executable, "-m", "cmcgns", "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"{cmcgns.__version__}\n")
