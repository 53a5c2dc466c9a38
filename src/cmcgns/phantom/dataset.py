"""Write synthetic studies as a dataset: images, masks and a manifest."""

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from cmcgns.common.claim import claimed
from cmcgns.common.errors import UserError
from cmcgns.common.files import write_bytes
from cmcgns.common.processes import worker_pool
from cmcgns.data.boxes import boxes_text
from cmcgns.data.images.files import open_picture
from cmcgns.data.manifest import LABEL, SYNTHETIC, write_manifest
from cmcgns.phantom.hard import HARD_FINDINGS, make_hard_study
from cmcgns.phantom.study import PATIENT_BLOCK, Study, check_side, make_study

Row = dict[str, str | int]

_CHUNK = 64
_Pixels = NDArray[np.uint8] | NDArray[np.uint16]

Level = Literal["plain", "hard"]
_MAPS: dict[str, str] = {"plain": "finding_map", "hard": "finding_layer"}  # which finding is where


def write_dataset(
    out: Path, counts: Mapping[str, int], *, seed: int = 0, size: int = 128, workers: int = 1, level: Level = "plain"
) -> Path:
    """Write ``counts[split]`` studies for every split below ``out``; no patient is in two splits.

    The files are the same for any number of workers.

    Args:
        out: folder to fill with ``images/``, ``masks/`` and ``finding_maps/`` (studies with findings; any finding is
            255 in the one, each has its number in the other) and ``manifest.parquet``. The hard level has
            ``finding_layers/`` for ``finding_maps/``: 16-bit pictures, see :func:`finding_mask`.
        counts: number of studies by name of split, such as ``{"train": 2000, "test": 500}``. At the hard level half
            of the statements of the split ``test`` are worded as in no other.
        seed: names the series of studies.
        size: height and width of the images in pixels.
        workers: number of processes.
        level: ``plain``, or ``hard`` (:mod:`cmcgns.phantom.hard`).

    Returns:
        Path of the manifest, one row per image, boxes in pixels as JSON.

    Raises:
        UserError: if ``out`` already has a manifest or a number is out of range.
    """
    manifest = out / "manifest.parquet"
    _check(manifest, counts, size, workers, level)
    with claimed(out, "phantom studies"):
        _check(manifest, counts, size, workers, level)  # once more: another process may have just been here
        return _write(out, counts, seed, size, workers, level)


def finding_mask(layers: Path, label: str) -> NDArray[np.bool_]:
    """Where a finding of the hard level is, whatever lies over it.

    Args:
        layers: a file of ``finding_layers/``, as the manifest's ``finding_layer_path`` names it (empty: no finding).
        label: one of :data:`cmcgns.phantom.hard.HARD_FINDINGS`; the boxes tell its instances apart.

    Returns:
        (H, W).

    Raises:
        ValueError: the level has no such label.
        UserError: no such file, or no PNG.
    """
    with open_picture(layers) as picture:
        inside: NDArray[np.bool_] = (np.asarray(picture).astype(np.uint16) >> HARD_FINDINGS.index(label) & 1) == 1
    return inside


def write_hard_studies(out: Path, studies: Iterable[tuple[Study, str]]) -> Path:
    """Write given studies of the hard level as :func:`write_dataset` writes its own.

    Args:
        out: folder to fill.
        studies: each with its split; no two with one id.

    Returns:
        Path of the manifest.

    Raises:
        UserError: ``out`` already has a manifest.
    """
    manifest = out / "manifest.parquet"
    with claimed(out, "phantom studies"):
        _check_new(manifest)
        _make_folders(out, "hard")
        rows = [_write_study(out, study, split, "hard") for study, split in studies]
        return write_manifest(pd.DataFrame(rows), manifest)


def _make_folders(out: Path, level: Level) -> None:
    for folder in ("images", "masks", f"{_MAPS[level]}s"):
        (out / folder).mkdir(parents=True, exist_ok=True)


def _write(out: Path, counts: Mapping[str, int], seed: int, size: int, workers: int, level: Level) -> Path:
    _make_folders(out, level)
    tasks = _assign(counts)
    chunks = [tasks[start : start + _CHUNK] for start in range(0, len(tasks), _CHUNK)]
    write = partial(_write_chunk, out, seed, size, level)
    if workers == 1:
        rows = list(chain.from_iterable(map(write, chunks)))
    else:
        with worker_pool(workers) as pool:
            rows = list(chain.from_iterable(pool.map(write, chunks)))
    return write_manifest(pd.DataFrame(rows), out / "manifest.parquet")


def _check_new(manifest: Path) -> None:
    if manifest.exists():
        raise UserError(f"{manifest} exists already; choose another folder or remove that dataset first")


def _check(manifest: Path, counts: Mapping[str, int], size: int, workers: int, level: str) -> None:
    _check_new(manifest)
    for split, count in counts.items():
        if count < 0:
            raise UserError(f"split {split!r} asks for {count} studies; a count must not be negative")
    if not sum(counts.values()):
        raise UserError("no study was asked for; give counts such as {'train': 2000, 'test': 500}")
    check_side(size)
    if workers < 1:
        raise UserError(f"workers is {workers}; take 1 or more")
    if level not in _MAPS:
        raise UserError(f"no level is called {level!r}; there are {', '.join(_MAPS)}")


def _assign(counts: Mapping[str, int]) -> list[tuple[int, str]]:
    """Study indices by split; each split starts a new block of patients, so none is in two splits."""
    tasks: list[tuple[int, str]] = []
    start = 0
    for split, count in counts.items():
        tasks += [(index, split) for index in range(start, start + count)]
        start += -(-count // PATIENT_BLOCK) * PATIENT_BLOCK
    return tasks


def _write_chunk(out: Path, seed: int, size: int, level: Level, tasks: Sequence[tuple[int, str]]) -> list[Row]:
    """Draw some studies and write them."""
    rows = []
    for index, split in tasks:
        if level == "hard":
            study = make_hard_study(seed, index, size, held_out=split == "test")
        else:
            study = make_study(seed, index, size)
        rows.append(_write_study(out, study, split, level))
    return rows


def _write_study(out: Path, study: Study, split: str, level: Level) -> Row:
    """Write a study's pictures, so that a reader never sees half of a file, and give its row of the manifest."""
    pictures: dict[str, _Pixels] = {"image": study.image}
    if study.findings:
        pictures |= {"mask": np.where(study.mask > 0, 255, 0).astype(np.uint8), _MAPS[level]: study.mask}
    files = {kind: (f"{kind}s/{study.study_id}.png", _png(pixels)) for kind, pixels in pictures.items()}
    for name, content in files.values():
        write_bytes(out / name, content, durable=False)
    paths = {f"{kind}_path": files.get(kind, ("",))[0] for kind in ("image", "mask", _MAPS[level])}
    return _row(study, split) | paths | {"sha256": hashlib.sha256(files["image"][1]).hexdigest()}


def _row(study: Study, split: str) -> Row:
    size = len(study.image)
    row: Row = {
        "study_id": f"{SYNTHETIC}:{study.study_id.removeprefix('phantom-')}",
        "patient_id": f"{SYNTHETIC}:{study.patient_id.removeprefix('phantom-')}",
        "dataset": SYNTHETIC,
        "view": study.view,
        "findings": study.findings_text,
        "impression": study.impression,
        "sex": study.sex,
        "age": study.age,
        "split": split,
        "boxes": _boxes(study),
    }
    row |= {f"{LABEL}{label}": value for label, value in study.labels.items()}
    return row | {"width": size, "height": size, "original_width": size, "original_height": size}


def _boxes(study: Study) -> str:
    boxes = []
    for finding in study.findings:
        fields = asdict(finding)
        x, y, width, height = fields.pop("box")
        boxes.append(fields | {"x": x, "y": y, "width": width, "height": height})
    return boxes_text(boxes)


def _png(pixels: _Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
