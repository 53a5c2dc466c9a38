"""Tiny files for trees in the datasets' official layouts."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cmcgns.data.manifest import conform, write_manifest
from cmcgns.prepare.sources import get_source
from cmcgns.prepare.sources.base import SourceOptions, SourceTable
from support.image_faults import dicom, dicom_bytes, encoded


def pixels(seed: int = 0, height: int = 8, width: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def write_image(path: Path, seed: int = 0) -> Path:
    """JPEG or PNG, by the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(pixels(seed), "PNG" if path.suffix.lower() == ".png" else "JPEG"))
    return path


def write_dicom(path: Path, seed: int = 0, **elements: Any) -> Path:
    """Uncompressed 8-bit radiograph; elements by keyword."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dicom_bytes(dicom(pixels(seed), **elements)))
    return path


def write_text(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def read_source(name: str, root: Path, **options: object) -> SourceTable:
    """What the reader gives, after the promises that hold for every reader were checked."""
    table = get_source(name).read(root, SourceOptions(**options))  # type: ignore[arg-type]
    assert (table.frame["source"] != "").all()
    folder = options.get("images") or (root if root.is_dir() else root.parent)
    assert all((Path(str(folder)) / path).is_file() for path in table.frame["source"])
    assert table.frame["patient_id"].str.contains(":", regex=False).all()
    assert table.frame["study_id"].str.contains(":", regex=False).all()
    assert all(set(entry) == {"where", "reason"} for entry in table.left_out)
    conform(table.frame.assign(image_path=table.frame["source"]), name)
    return table


def manifest_of(table: SourceTable, path: Path) -> Path:
    """The rows as `prepare` would write them, without its work on images."""
    return write_manifest(table.frame.assign(image_path=table.frame["source"]), path)


def column(table: SourceTable, name: str, by: str = "source") -> dict[str, object]:
    """Image -> cell, missing ones as None."""
    values = table.frame[name]
    return {key: None if pd.isna(value) else value for key, value in zip(table.frame[by], values, strict=True)}


def reasons(table: SourceTable) -> str:
    """All that was left out or noted, as one text."""
    return "\n".join([*(f"{entry['where']}: {entry['reason']}" for entry in table.left_out), *table.notes])
