"""A dataset whose images say what their labels are, and an encoder that reads it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from cmcgns.data.manifest import write_manifest
from cmcgns.evaluation.contract import Job
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.protocols import Cell
from support.evaluation import job_of, parts_of, protocol_of, write_pictures

SIDE, CLASSES = 16, ("A", "B", "C")


class Body(nn.Module):
    """Means of a grid of places: an oracle for images whose places are the labels."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(16)
        self.layer1 = nn.Conv2d(16, 16, 1)
        self.calls = 0
        with torch.no_grad():
            self.layer1.weight.copy_(torch.eye(16)[:, :, None, None])
            self.layer1.bias.zero_()
        self.feature_info = [None]

    def forward_features(self, images: Tensor) -> Tensor:
        """(B, 1, 16, 16) -> (B, 16, 4, 4): the 16 values of a block of 4 x 4 pixels are channels."""
        self.calls += 1
        maps: Tensor = self.layer1(self.norm(nn.functional.pixel_unshuffle(images, 4)))
        return maps

    def forward_intermediates(self, images: Tensor, **options: Any) -> list[Tensor]:
        """The only map."""
        del options
        return [self.forward_features(images)]


class Encoder(nn.Module):
    """What `FrozenEncoder` expects of an image encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.width, self.channels = Body(), 16, 1

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled features and tokens."""
        tokens = self.body.forward_features(images).flatten(2).transpose(1, 2)
        return tokens.mean(1), tokens


def oracle() -> FrozenEncoder:
    return FrozenEncoder("oracle", Encoder(), SIDE, SIDE)


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
