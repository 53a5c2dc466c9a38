"""Every verb that writes names a place where it cannot, before it works for it, and without a traceback."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cmcgns.cli import app
from cmcgns.phantom.dataset import write_dataset
from cmcgns.training.run_folder import RunFolder
from support.training import tiny_recipe

RANDOM = "random:resnet10t"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("places") / "data"
    write_dataset(folder, {"train": 8, "val": 2, "test": 4}, size=40)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `report` takes for a run until it reads the weights."""
    folder = tmp_path_factory.mktemp("places") / "run"
    folder.mkdir()
    RunFolder(folder).create(tiny_recipe(), None)
    return folder


@pytest.fixture(scope="module")
def read_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A disk that nobody can write to; a folder without rights would not stop root."""
    place = tmp_path_factory.mktemp("read-only")
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root can mount a disk")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=40k", "tmpfs", str(place)], check=False).returncode:
        pytest.skip("this root may not mount")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


Verb = Callable[[Path, Path, Path], list[object]]
VERBS: dict[str, Verb] = {
    "pretrain": lambda out, data, _: ["pretrain", "demo", "--data", data, "--out", out, "--accelerator=cpu"],
    "evaluate": lambda out, data, _: ["evaluate", RANDOM, "--protocol=knn/v1", "--data", data, "--out", out],
    "report": lambda out, data, run: ["report", run, "--data", data, "--out", out],
    "clusters": lambda out, data, run: ["clusters", run, "--data", data, "--out", out],
    "prepare": lambda out, data, _: ["prepare", "table", "--root", data, "--out", out],
    "check": lambda out, data, _: ["check", data, "--out", out],
    "phantom studies": lambda out, *_: ["phantom", "studies", "--out", out, "--train=2"],
    "phantom tree": lambda out, *_: ["phantom", "tree", "nih", "--out", out, "--studies=8"],
    "demo": lambda out, *_: ["demo", "--out", out],
    "bench step": lambda out, *_: ["bench", "step", "demo", "--json", out / "figures.json"],
}


def refused(arguments: list[object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """The message of a call that ends with status 2."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(sys, "argv", ["cmcgns", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        app.main()
    assert caught.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_a_file_where_a_folder_should_be(
    verb: str,
    data: Path,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for out in (file, file / "below"):
        error = refused(VERBS[verb](out, data, run), monkeypatch, capsys)
        assert str(out) in error
        assert "file" in error
    assert file.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("verb", VERBS)
def test_a_read_only_disk(
    verb: str,
    data: Path,
    run: Path,
    read_only: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for out in (read_only, read_only / "new" / "out"):
        error = refused(VERBS[verb](out, data, run), monkeypatch, capsys)
        assert f"{out}: cannot be written (that disk is read-only); choose another place" in error
