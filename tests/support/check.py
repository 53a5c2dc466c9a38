"""Small manifests with images, to be broken one thing at a time."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from cmcgns.check.rule import Finding
from cmcgns.check.run import run_checks
from cmcgns.data.manifest import write_manifest


def picture(seed: int, size: tuple[int, int] = (120, 100)) -> NDArray[np.uint8]:
    """(height, width) of smooth blobs; different seeds give different pictures."""
    coarse = np.random.default_rng(seed).random((7, 6)).astype(np.float32)
    smooth = np.asarray(Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC))
    return np.clip(20 + 200 * smooth, 0, 255).astype(np.uint8)


def sha(text: str) -> str:
    """A hash as the manifest keeps it."""
    return hashlib.sha256(text.encode()).hexdigest()


def rows(count: int = 6, name: str = "set") -> pd.DataFrame:
    """A manifest without fault: a patient and a study per row, half of them train, half test."""
    numbers = [str(number) for number in range(count)]
    return pd.DataFrame(
        {
            "image_path": [f"images/{number}.png" for number in numbers],
            "study_id": [f"{name}:s{number}" for number in numbers],
            "patient_id": [f"{name}:p{number}" for number in numbers],
            "dataset": name,
            "view": "PA",
            "split": ["train" if number < count / 2 else "test" for number in range(count)],
            "width": 100,
            "height": 120,
            "sha256": [sha(f"{name}{number}") for number in numbers],
            "findings": [f"No effusion in study {number}." for number in numbers],
        }
    )


def write(folder: Path, frame: pd.DataFrame, images: bool = False) -> Path:
    """Write a manifest and, if asked, a picture for every row that has no file yet."""
    folder.mkdir(parents=True, exist_ok=True)
    if images:
        (folder / "images").mkdir(exist_ok=True)
        for number, path in enumerate(frame["image_path"]):
            if not (folder / path).exists():
                Image.fromarray(picture(number)).save(folder / path)
    write_manifest(frame, folder / "manifest.parquet")
    return folder


def changed(frame: pd.DataFrame, column: str, values: dict[int, Any]) -> pd.DataFrame:
    """A copy with other values in some rows of a column."""
    frame = frame.copy()
    cells = frame[column].tolist() if column in frame else [None] * len(frame)
    for row, value in values.items():
        cells[row] = value
    frame[column] = cells
    return frame


def box(x: float, y: float, width: float, height: float) -> dict[str, object]:
    """A box as the manifest keeps it."""
    return {"label": "opacity", "x": x, "y": y, "width": width, "height": height}


def found(folders: Path | Sequence[Path], rule: str, images: bool = False) -> list[Finding]:
    """Findings of one rule."""
    folders = [folders] if isinstance(folders, Path) else folders
    return [finding for finding in run_checks(folders, open_images=images).findings if finding.rule == rule]
