"""Results on disk: finished cells with what they were made from, and a row for every figure.

OUT/results.jsonl                                every figure
OUT/encoder.json                                 who was judged
OUT/cells/rsna-linear-v1/protocol.json           the protocol, the split's hash, how many rows, the key of its cells
OUT/cells/rsna-linear-v1/10-percent-seed-0.npz   predictions
OUT/cells/rsna-linear-v1/10-percent-seed-0.json  key and facts; written last: a cell without it is not done
"""

from __future__ import annotations

import json
import logging
import re
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cmcgns.common.claim import holds_anything
from cmcgns.common.errors import UserError
from cmcgns.common.files import make_folder, write_arrays, write_json, write_text
from cmcgns.evaluation.contract import Predictions
from cmcgns.evaluation.protocols import Cell

logger = logging.getLogger(__name__)

CELLS, ENCODER, PROTOCOL = "cells", "encoder.json", "protocol.json"
_ROWS, _PATIENTS = "rows", "patients"
_OTHER_CONTENT = (ValueError, KeyError, TypeError, AttributeError)  # of a file that is no npz


@dataclass(frozen=True)
class ResultRow:
    """A figure with its interval and everything needed to know what it is.

    Attributes:
        protocol: id, with `@dataset` where the protocol does not name one.
        task: linear, detection, …
        dataset: name in the manifest.
        split: hash of who is in which split.
        encoder: its name.
        encoder_sha256: of its weights (all of the run that it comes from, if it does) and preprocessing.
        metric: for example `auroc`.
        label: class; empty for the mean over classes.
        group: subgroup, for example `sex=F`; empty for everyone.
        primary: whether tables show this figure.
        value: the figure; None where it is undefined.
        low: lower end of its 95 % interval (patient-clustered bootstrap); None where there is none (see `note`).
        high: upper end.
        n: test rows; of the subgroup, if it is one; of a class only those that it is judged on (that have its label).
        patients: test patients of these rows.
        positives: rows of a class that have it; None for figures over all classes, and where no label says so.
        support: patients of the scarcest kind that the figure rests on (of a class its positives or its negatives, of
            Dice those with a mask); with fewer than 5 there is no interval, with fewer than 10 it is too narrow.
        fraction: per cent of the training patients; None for tasks that learn nothing.
        seed: of this cell; None: the mean over seeds.
        seeds: how many seeds are behind the value.
        sd: standard deviation over seeds; None for a single one.
        resamples: behind the interval.
        leakage: empty, or what `--allow-leakage` allowed.
        note: what a reader must know, e.g. classes left out of a mean, or why there is no interval.
    """

    protocol: str
    task: str
    dataset: str
    split: str
    encoder: str
    encoder_sha256: str
    metric: str
    label: str = ""
    group: str = ""
    primary: bool = False
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    patients: int = 0
    positives: int | None = None
    support: int = 0
    fraction: float | None = None
    seed: int | None = None
    seeds: int = 1
    sd: float | None = None
    resamples: int = 0
    leakage: str = ""
    note: str = ""


def message_of(error: Exception, what: str) -> str:
    """What a user is told of a failure; one that is a bug of the program is logged."""
    if isinstance(error, UserError):
        return str(error)
    logger.error("%s failed", what, exc_info=error)
    return f"{type(error).__name__}: {error}"


def write_results(file: Path, rows: Iterable[Any], **more: str) -> Path:
    """Write rows (data classes) as lines of JSON, each behind what `more` says; a reader never sees half of them."""
    lines = (json.dumps(more | asdict(row), ensure_ascii=False, allow_nan=False) for row in rows)
    write_text(file, "".join(f"{line}\n" for line in lines))
    return file


def slug(protocol: str) -> str:
    """A folder name for a protocol's id."""
    return re.sub(r"[^A-Za-z0-9.+@-]+", "-", protocol)


def cell_folder(folder: Path, protocol: str) -> Path:
    """Where a protocol's cells are."""
    return folder / CELLS / slug(protocol)


def open_results(folder: Path, name: str, sha256: str) -> None:
    """Take a folder for results of one encoder; a second call of the same encoder goes on in it.

    Raises:
        UserError: it holds another encoder's results or something else, or cannot be written.
    """
    if (folder / ENCODER).is_file():
        before = read_encoder(folder)
        if before.get("sha256") != sha256:
            raise UserError(
                f"--out {folder} holds results of {before.get('encoder')} with other weights, or of a "
                "version that did not count all of them: choose another folder (and `cmcgns compare A B` for both), "
                "or delete it"
            )
        return
    if folder.exists() and (not folder.is_dir() or holds_anything(folder)):
        raise UserError(f"--out {folder} is not empty and holds no results: choose another folder")
    make_folder(folder)
    write_json(folder / ENCODER, {"encoder": name, "sha256": sha256})


def read_encoder(folder: Path) -> dict[str, str]:
    """Name (`encoder`) and `sha256` of the encoder that a folder judges.

    Raises:
        UserError: not a folder that `cmcgns evaluate` wrote.
    """
    if not (file := folder / ENCODER).is_file():
        raise UserError(f"{folder} holds no results of `cmcgns evaluate` ({ENCODER} is missing)")
    content: dict[str, str] = _read_record(file)
    if not {"encoder", "sha256"} <= content.keys():
        raise UserError(f"{file} is damaged: nobody knows whose results these are; evaluate into another folder")
    return content


def write_protocol(folder: Path, protocol: str, content: dict[str, Any]) -> None:
    """Record what a protocol's cells are made from; if it has a `key`, finished cells of another one do not count."""
    write_json(cell_folder(folder, protocol) / PROTOCOL, {"protocol": protocol} | content)


def read_protocol(folder: Path, protocol: str) -> dict[str, Any]:
    """What :func:`write_protocol` recorded.

    Raises:
        UserError: it is not there, or damaged.
    """
    file = cell_folder(folder, protocol) / PROTOCOL
    content = _read_record(file) if file.is_file() else {}
    if "protocol" not in content or "task" not in content.get("settings", ()):
        raise UserError(f"{file} is missing or damaged: delete {file.parent} and evaluate this protocol again")
    return content


def protocols_of(folder: Path) -> list[str]:
    """Protocols with a finished cell; none where every protocol failed.

    Raises:
        UserError: not a folder that `cmcgns evaluate` wrote, or a damaged record.
    """
    read_encoder(folder)
    names = [
        str(read_protocol(folder, file.parent.name)["protocol"])
        for file in sorted((folder / CELLS).glob(f"*/{PROTOCOL}"))
    ]
    return [name for name in names if cells_of(folder, name)]


def cells_of(folder: Path, protocol: str) -> list[Cell]:
    """Finished cells of a protocol, in order; those of earlier data or settings are left out."""
    base, key = cell_folder(folder, protocol), read_protocol(folder, protocol).get("key")
    files = [file for file in sorted(base.glob("*.json")) if file.with_suffix(".npz").is_file()]
    records = [record for record in map(_read_record, files) if "key" in record and key in (None, record["key"])]
    cells = [Cell(record["fraction"], record["seed"]) for record in records if {"fraction", "seed"} <= record.keys()]
    return sorted(cells, key=lambda cell: (cell.fraction or 0, cell.seed or 0))


def is_done(folder: Path, protocol: str, cell: Cell, key: str) -> bool:
    """Whether a cell was finished with the same encoder, protocol, split and rows, and is still whole."""
    file = cell_folder(folder, protocol) / f"{cell.name}.json"
    record = _read_record(file) if file.is_file() else {}
    whole = {"fraction", "seed", "facts"} <= record.keys() and record.get("key") == key
    return whole and _is_whole(file.with_suffix(".npz"))


def write_predictions(folder: Path, protocol: str, cell: Cell, key: str, predictions: Predictions) -> None:
    """Keep a finished cell.

    Raises:
        ValueError: arrays of objects, or names that are taken.
    """
    base = cell_folder(folder, protocol)
    arrays = {_ROWS: predictions.rows, _PATIENTS: predictions.patients}
    if taken := arrays.keys() & predictions.arrays.keys():
        raise ValueError(f"predictions must not be called {', '.join(sorted(taken))}")
    arrays |= predictions.arrays
    for name, values in arrays.items():
        if np.asarray(values).dtype.hasobject:
            raise ValueError(f"predictions {name} are objects; numbers or text are expected")
    (base / f"{cell.name}.json").unlink(
        missing_ok=True
    )  # of other data: beside the new file it would pass for its own
    write_arrays(base / f"{cell.name}.npz", arrays, compress=True)
    record = {"key": key, "fraction": cell.fraction, "seed": cell.seed, "facts": dict(predictions.facts)}
    write_json(base / f"{cell.name}.json", record)


def discard(folder: Path, protocol: str, cell: Cell) -> None:
    """Forget a cell, finished or not."""
    for suffix in (".json", ".npz"):
        (cell_folder(folder, protocol) / f"{cell.name}{suffix}").unlink(missing_ok=True)


def read_predictions(folder: Path, protocol: str, cell: Cell) -> Predictions:
    """A finished cell.

    Raises:
        UserError: it is not there, or damaged.
    """
    base = cell_folder(folder, protocol)
    try:
        with (base / f"{cell.name}.npz").open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        facts = _read_record(base / f"{cell.name}.json")["facts"]
        return Predictions(arrays.pop(_ROWS), arrays.pop(_PATIENTS), arrays, facts)
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, *_OTHER_CONTENT) as error:
        way = "`cmcgns evaluate` with the same --out computes it again"
        # Without the error's own words: numpy's may advise to load the file unsafely.
        raise UserError(f"{base / cell.name}.npz is damaged: {way}") from error


def _is_whole(file: Path) -> bool:
    """Whether every array in a file has the checksum that it was written with."""
    try:
        with zipfile.ZipFile(file) as arrays:
            return arrays.testzip() is None
    except (OSError, zipfile.BadZipFile, zlib.error):
        return False


def _read_record(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
