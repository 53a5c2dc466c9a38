"""A resumed run goes on with the rows, splits and pictures that it was started with, or says which are gone."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cmcgns.common.claim import LOCK
from cmcgns.common.errors import UserError
from cmcgns.data.images import read
from cmcgns.data.shards.write import write_shards
from cmcgns.settings.config import Recipe
from cmcgns.training.seen import ENTERED, open_seen
from support.training import assert_same_end, in_child, kill_at_step, run, run_with_fault, tiny_recipe

ABSENT = (4, 17)  # rows, from 1, whose images are not there when the run starts
STOPPED = 10  # between two checkpoints


def recipe() -> Recipe:
    """Every seventh of the studies is held out by drawing; what cannot be read is left out."""
    return tiny_recipe(data__bad_images="leave_out", data__val_split=None, data__val_fraction=1 / 7)


def image_of(data: Path, row: int) -> Path:
    return data / str(pd.read_parquet(data / "manifest.parquet")["image_path"][row - 1])


@pytest.fixture(scope="module")
def gaps(studies: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Studies without the images of two training rows."""
    data = shutil.copytree(studies, tmp_path_factory.mktemp("gaps") / "data")
    for row in ABSENT:
        image_of(data, row).unlink()
    return data


@pytest.fixture(scope="module")
def stopped(gaps: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stopped") / "run"
    assert in_child(run_with_fault, kill_at_step, (STOPPED,), gaps, out, recipe()) == -9
    return out


@pytest.fixture
def data(gaps: Path, tmp_path: Path) -> Path:
    """A copy that a test may change; where it lies makes no difference."""
    return shutil.copytree(gaps, tmp_path / "moved")


@pytest.fixture
def out(stopped: Path, tmp_path: Path) -> Path:
    return shutil.copytree(stopped, tmp_path / "run")


def noted_rows(out: Path, part: str) -> list[int]:
    seen = open_seen(out / "seen.parquet")
    assert seen is not None
    assert seen.entered is not None
    frame = seen.entered
    return [int(row) for row in frame["row"][frame["part"] == part]]


def test_images_that_come_back_do_not_change_the_run(
    gaps: Path, studies: Path, data: Path, out: Path, tmp_path: Path
) -> None:
    """Neither do they train, nor is the split drawn anew."""
    whole = run(gaps, tmp_path / "whole", recipe())
    for row in ABSENT:
        shutil.copy(image_of(studies, row), image_of(data, row))
    run(data, out, recipe(), resume=True)
    assert_same_end(whole, out)
    train, validation = noted_rows(out, "train"), noted_rows(out, "val")
    manifest = pd.read_parquet(studies / "manifest.parquet")
    used = np.flatnonzero(manifest["split"] == "train") + 1
    assert sorted(train + validation) == [row for row in used.tolist() if row not in ABSENT]
    patients = [set(manifest["patient_id"][[row - 1 for row in rows]]) for rows in (train, validation)]
    assert not patients[0] & patients[1]


def test_a_run_that_starts_over_still_says_what_was_left_out(gaps: Path, tmp_path: Path) -> None:
    """Killed after its rows were noted and before the first checkpoint."""
    out = tmp_path / "run"
    assert in_child(run_with_fault, kill_at_step, (0,), gaps, out, recipe()) == -9
    assert not list((out / "state").glob("step-*"))
    before = (out / "left_out.csv").read_text(), json.loads((out / "provenance.json").read_text())["data"]
    assert before[0].count("image file is missing") == len(ABSENT)
    run(gaps, out, recipe(), resume=True)
    assert ((out / "left_out.csv").read_text(), json.loads((out / "provenance.json").read_text())["data"]) == before


def test_images_that_were_moved_to_another_disk_are_the_same_images(
    gaps: Path, data: Path, out: Path, tmp_path: Path
) -> None:
    whole = run(gaps, tmp_path / "whole", recipe())
    (tmp_path / "disk").mkdir()
    (data / "images").rename(tmp_path / "disk" / "images")
    asked = recipe()
    settings = asked.data.model_copy(update={"images": str(tmp_path / "disk")})
    run(data, out, asked.model_copy(update={"data": settings}), resume=True)
    assert_same_end(whole, out)


@pytest.mark.parametrize("what", ["vanished", "torn"])
def test_images_that_are_gone_are_named(what: str, data: Path, out: Path) -> None:
    for row in (2, 9):
        if what == "vanished":
            image_of(data, row).unlink()
        else:
            image_of(data, row).write_bytes(image_of(data, row).read_bytes()[:90])
    (out / LOCK).unlink()
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(
        UserError, match=r"(?s)2 images .* cannot be read any more:\n  row 2: .*\n  row 9: .*Put them back"
    ):
        run(data, out, recipe(), resume=True)
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_a_replaced_image_is_named(data: Path, out: Path) -> None:
    for row in (noted_rows(out, "train")[3], noted_rows(out, "val")[1]):
        pixels = np.array(Image.open(image_of(data, row)))
        Image.fromarray(pixels).save(image_of(data, row), compress_level=1)  # the same picture in other bytes
    row = noted_rows(out, "val")[2]
    pixels = np.array(Image.open(image_of(data, row)))
    pixels[20, 20] ^= 8
    Image.fromarray(pixels).save(image_of(data, row))
    with pytest.raises(UserError, match=rf"1 images .* have been replaced:\n  row {row}: .*\nPut them back"):
        run(data, out, recipe(), resume=True)


def test_files_that_another_version_decodes_otherwise_are_the_same_files(
    data: Path, out: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    decode = read.read_image
    monkeypatch.setattr(read, "read_image", lambda *args: decode(*args) ^ 1)
    monkeypatch.setattr(read, "_CACHE_VERSION", read._CACHE_VERSION + 1)
    row, kept = noted_rows(out, "train")[3], image_of(data, noted_rows(out, "train")[3]).read_bytes()
    pixels = np.array(Image.open(image_of(data, row)))
    Image.fromarray(255 - pixels).save(image_of(data, row))
    with pytest.raises(UserError, match=rf"1 images .* have been replaced:\n  row {row}: .*\nPut them back"):
        run(data, out, recipe(), resume=True)
    image_of(data, row).write_bytes(kept)
    with caplog.at_level(logging.WARNING):
        run(data, out, recipe(), resume=True)
    for part in ("train", "val"):
        said = f"{len(noted_rows(out, part))} {part} images have other pixels than when the run started, though their"
        assert said in caplog.text
    assert (out / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("column", "changed"),
    [("findings", "Something else."), ("patient_id", "phantom:99"), ("image_path", "images/x.png")],
)
def test_changed_rows_of_the_table_are_named(column: str, changed: str, data: Path, out: Path) -> None:
    first, second = noted_rows(out, "train")[5], noted_rows(out, "val")[0]
    frame = pd.read_parquet(data / "manifest.parquet")
    frame.loc[first - 1, column] = changed
    if column != "findings":
        frame.loc[first - 1, "study_id"] = "a study of its own"
    frame.loc[second - 1, "findings"] = "Something else."
    frame.to_parquet(data / "manifest.parquet")
    rows = ", ".join(map(str, sorted((first, second))))
    with pytest.raises(UserError, match=rf"has changed since the run started \(rows {rows} of the run are others\)"):
        run(data, out, recipe(), resume=True)


def test_a_table_with_more_rows_is_another_one(data: Path, out: Path) -> None:
    frame = pd.read_parquet(data / "manifest.parquet")
    frame[:-1].to_parquet(data / "manifest.parquet")  # a row of validation, which this run does not use
    with pytest.raises(UserError, match=r"has changed .* \(the rows of the run are as they were\)"):
        run(data, out, recipe(), resume=True)


def test_a_run_of_an_earlier_version_goes_on_with_a_warning(
    data: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = pq.read_table(out / "seen.parquet")
    pq.write_table(table.drop_columns(list(ENTERED)), out / "seen.parquet")
    with caplog.at_level(logging.WARNING):
        run(data, out, recipe(), resume=True)
    assert "seen.parquet is of an earlier version: the run goes on with the rows and images that" in caplog.text


def test_a_changed_shard_is_noticed_though_its_size_is_the_same(studies: Path, tmp_path: Path) -> None:
    write_shards(studies, tmp_path / "shards", per_shard=10)
    out = tmp_path / "run"
    assert in_child(run_with_fault, kill_at_step, (STOPPED,), tmp_path / "shards", out, tiny_recipe()) == -9
    shard = sorted((tmp_path / "shards").glob("*train*.tar"))[0]
    content = bytearray(shard.read_bytes())
    content[700] ^= 1  # within the first image
    shard.write_bytes(content)
    with pytest.raises(UserError, match=rf"{shard.name}: damaged"):
        run(tmp_path / "shards", out, tiny_recipe(), resume=True)
