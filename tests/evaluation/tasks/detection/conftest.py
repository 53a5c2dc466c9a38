"""A dataset in which bright rectangles are what has to be found."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cmcgns.data.manifest import boxes_text, write_manifest
from cmcgns.evaluation.contract import Job
from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.open_encoder import open_encoder
from cmcgns.evaluation.protocols import Cell, EvaluationProtocol
from cmcgns.evaluation.tasks.detection.task import TASK

EVERYTHING = (Cell(100, 0),)
SMALL = {"head_width": 16, "epochs": 3, "batch": 8, "learning_rate": 3e-3}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CMCGNS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def resnet():
    return open_encoder("random:resnet18", image_size=64)


@pytest.fixture
def write_rectangles(tmp_path):
    """Every third image is empty, the others have one or two rectangles; every other image is wider than high."""

    def write(name="rectangles", train=24, others=8, place=None, **columns):
        folder = tmp_path / name
        (folder / "images").mkdir(parents=True)
        rng, rows = np.random.default_rng(0), []
        for number in range(train + 2 * others):
            width, height = (96, 96) if number % 2 else (96, 72)
            pixels = rng.integers(0, 40, (height, width), dtype=np.uint8)
            boxes = []
            for _ in range(number % 3):
                w, h = (int(side) for side in rng.integers(16, 40, 2))
                x, y = int(rng.integers(8, width - w - 8)), int(rng.integers(8, height - h - 8))
                x, y, w, h = place or (x, y, w, h)
                pixels[y : y + h, x : x + w] = rng.integers(180, 220)
                boxes.append({"label": "a", "x": x, "y": y, "width": w, "height": h})
            Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
            part = "train" if number < train else "val" if number < train + others else "test"
            row = {"image_path": f"images/{number}.png", "width": width, "height": height, "source": f"{number}.dcm"}
            row |= {"study_id": f"d:{number}", "patient_id": f"d:{number // 2}", "dataset": "d", "view": "PA"}
            rows.append(row | {"split": part, "boxes": boxes_text(boxes)})
        frame = pd.DataFrame(rows)
        for column, values in columns.items():
            frame[column] = values
        write_manifest(frame, folder / "manifest.parquet")
        return folder

    return write


@pytest.fixture
def make_job(tmp_path, resnet):
    """A job over a dataset, with a small head."""

    def make(folder, encoder=resnet, cells=EVERYTHING, progress=lambda *_: None, whole_image=True, **settings):
        protocol = EvaluationProtocol.model_validate(
            {
                "id": "tiny/v1", "title": "tiny", "task": "detection", "split": {"rule": "any"},
                "whole_image": whole_image, "settings": SMALL | settings,
            }
        )  # fmt: skip
        data = TaskData(protocol, folder, encoder.image_size, encoder.resize)
        chosen = TASK.settings.model_validate(protocol.settings)
        places = tmp_path / "maps", tmp_path / "scratch"
        return Job(protocol, chosen, encoder, data, tuple(cells), *places, "cpu", progress)

    return make
