"""A dataset whose images say what their labels are, so that an oracle can read them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cmcgns.data.manifest import write_manifest
from cmcgns.evaluation.contract import Job
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.protocols import Cell
from cmcgns.evaluation.tasks.linear.probe import LinearProbe
from cmcgns.pretrained.zero_shot import probability
from support.evaluation import job_of, oracle, parts_of, protocol_of, write_pictures

CLASSES = ("A", "B", "C")


def write_images(
    folder: Path, counts: tuple[int, int, int] = (120, 40, 60), exclusive: bool = False, random: bool = False
) -> Path:
    """Each class lights its own of the 16 places of every block; or nothing does (`random`)."""
    rng, parts = np.random.default_rng(0), parts_of(counts)
    pictures, truth = [], []
    for _ in parts:
        labels = (rng.random(3) < 0.4).astype(int)
        if exclusive:
            labels = np.eye(3, dtype=int)[rng.integers(3)]
        block = rng.integers(60, 120, 16)
        block[:3] += 0 if random else 80 * labels
        pictures.append(np.tile(block.reshape(4, 4), (4, 4)).astype(np.uint8))
        truth.append(labels)
    stated = {f"label_{name}": values for name, values in zip(CLASSES, np.transpose(truth), strict=True)}
    patients = [f"d:{number // 2}" for number in range(len(parts))]
    return write_pictures(folder, pictures, split=parts, source="", patient_id=patients, **stated)


def change_labels(folder: Path, change: Any) -> None:
    """Rewrite the manifest as `change(frame)` says."""
    frame = pd.read_parquet(folder / "manifest.parquet")
    write_manifest(change(frame), folder / "manifest.parquet")


def predicted(probe: LinearProbe, features: np.ndarray) -> np.ndarray:
    """Probabilities (n, C) of a probe."""
    return probability(probe.logits(features), 1.0)


def make_job(
    folder: Path,
    work: Path,
    task: str = "linear",
    settings: dict[str, Any] | None = None,
    cells: Sequence[Cell] = (),
    encoder: FrozenEncoder | None = None,
) -> Job:
    """A job over such images, by default the oracle's."""
    return job_of(protocol_of(task, settings, labels=list(CLASSES)), folder, encoder or oracle(), cells, work)
