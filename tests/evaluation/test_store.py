"""Cells on disk: a damaged, missing or outdated one is never taken for a finished one."""

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from cmcgns.common.errors import UserError
from cmcgns.evaluation.contract import Predictions
from cmcgns.evaluation.protocols import Cell
from cmcgns.evaluation.results import (
    cell_folder,
    cells_of,
    is_done,
    protocols_of,
    read_encoder,
    read_predictions,
    read_protocol,
    write_predictions,
    write_protocol,
)

NAME, CELL = "linear/v1@mine", Cell(10.0, 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "encoder.json").write_text('{"encoder": "tiny", "sha256": "0"}')
    write_protocol(tmp_path, NAME, {"key": "k", "settings": {"task": "linear"}})
    rows = np.array([f"r{number}" for number in range(500)])
    arrays = {"scores": np.random.default_rng(0).random(500)}
    write_predictions(tmp_path, NAME, CELL, "k", Predictions(rows, rows, arrays, {"epochs": 3}))
    return tmp_path


def file_of(folder: Path, suffix: str) -> Path:
    return cell_folder(folder, NAME) / f"{CELL.name}{suffix}"


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


def test_what_was_kept_is_found(folder: Path) -> None:
    assert is_done(folder, NAME, CELL, "k")
    assert (protocols_of(folder), cells_of(folder, NAME)) == ([NAME], [CELL])
    assert read_predictions(folder, NAME, CELL).facts == {"epochs": 3}


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        (".npz", Path.unlink),
        (".npz", lambda file: file.write_bytes(file.read_bytes()[:100])),
        (".npz", lambda file: file.write_bytes(b"")),
        (".npz", flip),
        (".json", Path.unlink),
        (".json", lambda file: file.write_text('{"key": ')),
        (".json", lambda file: file.write_text('{"key": "k"}')),
        (".json", lambda file: file.write_text("[]")),
        (".json", lambda file: file.write_bytes(b"\xff\xfe")),
    ],
)
def test_a_damaged_cell_is_not_done(folder: Path, suffix: str, damage) -> None:
    damage(file_of(folder, suffix))
    assert not is_done(folder, NAME, CELL, "k")


def npy() -> bytes:
    """An array alone, in numpy's format."""
    stream = io.BytesIO()
    np.save(stream, np.ones(2))
    return stream.getvalue()


@pytest.mark.parametrize("damage", [
    flip, lambda file: file.write_bytes(file.read_bytes()[:100]), Path.unlink,
    lambda file: file.write_bytes(pickle.dumps([1])), lambda file: file.write_bytes(b""),
    lambda file: file.write_bytes(npy()),
])  # fmt: skip
def test_damaged_predictions_name_the_file_and_the_way_out(folder: Path, damage) -> None:
    damage(file_of(folder, ".npz"))
    with pytest.raises(UserError, match=r"10-percent-seed-0\.npz is damaged.*computes it again") as caught:
        read_predictions(folder, NAME, CELL)
    assert "pickle" not in str(caught.value)


@pytest.mark.parametrize("text", ['{"key": ', '{"key": "k"}'])
def test_a_cell_without_its_record_is_not_listed(folder: Path, text: str) -> None:
    file_of(folder, ".json").write_text(text)
    assert (cells_of(folder, NAME), protocols_of(folder)) == ([], [])


def test_cells_of_earlier_data_no_longer_count(folder: Path) -> None:
    write_protocol(folder, NAME, {"key": "other", "settings": {"task": "linear"}})
    assert cells_of(folder, NAME) == []


@pytest.mark.parametrize("text", ["garbage", "[]", '{"encoder": "a"}'])
def test_a_damaged_encoder_is_named(folder: Path, text: str) -> None:
    (folder / "encoder.json").write_text(text)
    with pytest.raises(UserError, match=r"encoder\.json is damaged"):
        read_encoder(folder)


@pytest.mark.parametrize("text", ["garbage", "[]", "{}"])
def test_a_damaged_protocol_is_named(folder: Path, text: str) -> None:
    (cell_folder(folder, NAME) / "protocol.json").write_text(text)
    for read in (protocols_of, lambda folder: read_protocol(folder, NAME)):
        with pytest.raises(UserError, match=r"protocol\.json is missing or damaged: delete"):
            read(folder)


def test_a_folder_in_which_all_failed_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "encoder.json").write_text('{"encoder": "tiny", "sha256": "0"}')
    assert protocols_of(tmp_path) == []
    with pytest.raises(UserError, match="holds no results"):
        protocols_of(tmp_path / "elsewhere")


def test_records_are_readable_by_people(folder: Path) -> None:
    record = json.loads(file_of(folder, ".json").read_text())
    assert record == {"key": "k", "fraction": 10.0, "seed": 0, "facts": {"epochs": 3}}
