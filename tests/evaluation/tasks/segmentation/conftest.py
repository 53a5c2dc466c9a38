"""A dataset in which bright rectangles are what has to be drawn."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from cmcgns.data.manifest import boxes_text, write_manifest
from cmcgns.evaluation.contract import Job
from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.protocols import Cell, EvaluationProtocol
from cmcgns.evaluation.tasks.segmentation.task import TASK

SMALL = {
    "unet_channels": [16, 16, 8, 8, 8],
    "pup_channels": [16, 8],
    "epochs": 3,
    "shortest_epoch": 1,
    "batch_size": 8,
}
EVERYTHING = (Cell(100, 0),)


def write_rectangles(folder: Path, train: int = 24, others: int = 8, side: int = 32) -> Path:
    """Every third image is empty; boxes and masks say the same."""
    (folder / "images").mkdir(parents=True)
    rng, rows = np.random.default_rng(0), []
    for number in range(train + 2 * others):
        pixels = rng.integers(0, 60, (side, side), dtype=np.uint8)
        mask, boxes = np.zeros_like(pixels), []
        if number % 3:
            (x, y), (w, h) = rng.integers(1, side // 3, 2), rng.integers(side // 4, side // 2, 2)
            pixels[y : y + h, x : x + w] += np.uint8(150)
            mask[y : y + h, x : x + w] = 255
            boxes = [{"label": "a", "x": int(x), "y": int(y), "width": int(w), "height": int(h)}]
            Image.fromarray(mask).save(folder / "images" / f"m{number}.png")
        Image.fromarray(pixels).save(folder / "images" / f"i{number}.png")
        part = "train" if number < train else "val" if number < train + others else "test"
        rows.append(
            {
                "image_path": f"images/i{number}.png", "mask_path": f"images/m{number}.png" if number % 3 else "",
                "width": side, "height": side, "boxes": boxes_text(boxes), "study_id": f"d:{number}",
                "patient_id": f"d:{number // 2}", "dataset": "d", "view": "PA", "split": part,
                "source": f"{number}.dcm",
            }
        )  # fmt: skip
    write_manifest(pd.DataFrame(rows), folder / "manifest.parquet")
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CMCGNS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def rectangles(tmp_path):
    return write_rectangles(tmp_path / "rectangles")


@pytest.fixture
def make_job(tmp_path):
    """A job over a dataset, with small decoders."""

    def make(folder, encoder, cells=EVERYTHING, progress=lambda *_: None, **settings):
        protocol = EvaluationProtocol.model_validate(
            {
                "id": "tiny/v1", "title": "tiny", "task": "segmentation", "split": {"rule": "any"},
                "whole_image": True, "settings": SMALL | settings,
            }
        )  # fmt: skip
        data = TaskData(protocol, folder, encoder.image_size, encoder.resize)
        chosen = TASK.settings.model_validate(protocol.settings)
        scratch = tmp_path / "scratch"
        return Job(protocol, chosen, encoder, data, tuple(cells), tmp_path / "cache", scratch, "cpu", progress)

    return make


class SeesAll(nn.Module):
    """A backbone whose only map is the image itself."""

    feature_info = (None,)

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward_intermediates(self, images, **options):
        assert options["indices"] == [0]
        return [images * self.weight]


class Eyes(nn.Module):
    """The little that is asked of an image encoder."""

    width = channels = 1

    def __init__(self):
        super().__init__()
        self.body = SeesAll()


@pytest.fixture
def oracle():
    """An encoder that loses nothing: what is to be drawn is in its map."""
    return FrozenEncoder("oracle", Eyes(), 32, 32)


@pytest.fixture
def change():
    """Settings with another value."""
    return lambda job, **values: replace(job, settings=job.settings.model_copy(update=values))
