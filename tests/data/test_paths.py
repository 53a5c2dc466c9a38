"""Paths in a table mean the same files to `prepare table` and to `pretrain`."""

from pathlib import Path

import pytest

from cmcgns.common.errors import UserError
from cmcgns.data.pairs.rows import read_pairs
from cmcgns.data.paths import plain_path
from cmcgns.prepare.run import PrepareOptions, prepare
from cmcgns.settings.config import DataSettings
from support.trees import read_source, reasons, write_image, write_text


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Pictures in one folder; a table belongs in another."""
    for name in ("a.png", "deep/b.png"):
        write_image(tmp_path / "pictures" / name)
    return tmp_path / "pictures"


def table(folder: Path, *paths: str) -> Path:
    rows = [f"{path},p{number},Normal." for number, path in enumerate(paths)]
    return write_text(folder / "tables" / "own.csv", "image_path,patient_id,report", *rows)


@pytest.mark.parametrize("spelling", ["{0}", "./{0}", "x/../{0}", "{1}", "{2}/{0}", "{2}/x/../{0}"])
def test_every_spelling_is_the_same_file(pictures: Path, spelling: str) -> None:
    names = ("a.png", "deep/b.png")
    own = table(pictures.parent, *(spelling.format(name, name.replace("/", "\\"), pictures) for name in names))
    wanted = [str(pictures.resolve() / name) for name in names]
    pairs = read_pairs(own, DataSettings(images=str(pictures)))
    assert pairs.frame["image_path"].tolist() == wanted
    prepared = read_source("table", own, images=pictures)
    assert [str(pictures.resolve() / name) for name in prepared.frame["source"]] == wanted


def test_without_the_folder_of_the_images_the_message_asks_for_it(pictures: Path) -> None:
    own = table(pictures.parent, "a.png", str(pictures / "deep/b.png"), "../pictures/a.png")
    found = read_source("table", own)
    assert found.frame.empty
    assert "no such file: image_path a.png" in reasons(found)
    hint = f"image_path lies outside of {own.parent}; name the folder of the images with --images DIR"
    assert reasons(found).count(hint) == 1
    assert "as seen from a folder above both, and name that with --images DIR" in reasons(found)


def test_paths_of_other_systems_and_urls_are_named(pictures: Path) -> None:
    own = table(pictures.parent, r"C:\pictures\a.png", r"\\server\a.png", "https://example.org/a.png", "a.png")
    found = read_source("table", own, images=pictures)
    assert found.frame["source"].tolist() == ["a.png"]
    assert reasons(found).count("an absolute path of another system; make it relative") == 2
    assert "is a URL; `prepare` reads files, `pretrain` takes URLs" in reasons(found)
    pairs = read_pairs(own, DataSettings(images=str(pictures), bad_images="leave_out"))
    assert pairs.frame["image_path"].tolist() == ["https://example.org/a.png", str(pictures.resolve() / "a.png")]


def test_names_of_any_length_are_missing_files(pictures: Path) -> None:
    own = table(pictures.parent, "a.png", "x" * 5_000 + ".png")
    pairs = read_pairs(own, DataSettings(images=str(pictures), bad_images="leave_out"))
    assert [left["reason"] for left in pairs.left_out] == ["image file is missing"]
    assert len(read_source("table", own, images=pictures).frame) == 1


def test_the_folder_of_a_user_who_is_not_there_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("image_path,report\na.png,Clear.\n")
    with pytest.raises(UserError, match=r"data\.images ~nobody-of-that-name/x: no such folder"):
        read_pairs(tmp_path / "own.csv", DataSettings(images="~nobody-of-that-name/x"))
    options = PrepareOptions(images=Path("~nobody-of-that-name/x"))
    with pytest.raises(UserError, match=r"--images ~nobody-of-that-name/x: no such folder"):
        prepare("table", tmp_path / "own.csv", tmp_path / "out", options)


def test_plain_paths() -> None:
    assert [plain_path(path) for path in ("", "a\\b", "./a//b/../c", "s3://a//b")] == ["", "a/b", "a/c", "s3://a//b"]
    assert plain_path("/a/") == "/a"
