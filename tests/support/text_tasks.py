"""Datasets whose pictures show their labels, and encoders that see them perfectly, or not at all."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from cmcgns.data.manifest import boxes_text, write_manifest
from cmcgns.evaluation.contract import Job, Predictions
from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.protocols import Cell, EvaluationProtocol
from cmcgns.evaluation.tasks import get_task
from cmcgns.metrics.measure import Measure
from cmcgns.models.image_encoder import ImageEncoder
from cmcgns.settings.config import ImageEncoderSettings

SIDE = 32
NAMES = ("Edema", "Pneumothorax", "Cardiomegaly")


def write_labelled(folder: Path, labels: np.ndarray, **columns: Any) -> Path:
    """Pictures of 32 px with one column of pixels a label, white where it is 1, and a code of the row below."""
    rows = []
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(labels):
        pixels = np.zeros((SIDE, SIDE), np.uint8)
        for c, value in enumerate(row):
            pixels[: SIDE // 2, 4 * c : 4 * c + 4] = 255 * (value == 1)
        for bit in range(8):
            pixels[SIDE // 2 :, 4 * bit : 4 * bit + 4] = 255 * (number >> bit & 1)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        rows.append({
            "image_path": f"images/{number}.png", "study_id": f"d:{number}", "patient_id": f"d:{number // 2}",
            "dataset": "d", "view": "PA", "split": "test", "source": f"{number}.png", "width": SIDE, "height": SIDE,
            **{f"label_{name}": int(value) for name, value in zip(NAMES, row, strict=False)},
        })  # fmt: skip
    write_manifest(pd.DataFrame(rows).assign(**columns), folder / "manifest.parquet")
    return folder


def write_boxed(folder: Path, pictures: Sequence[Sequence[tuple[int, int, int, int]]], **columns: Any) -> Path:
    """Black pictures of 32 px with white boxes x, y, width, height."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, marked in enumerate(pictures):
        pixels = np.zeros((SIDE, SIDE), np.uint8)
        for x, y, w, h in marked:
            pixels[y : y + h, x : x + w] = 255
        Image.fromarray(pixels).save(folder / f"{number}.png")
        stored = [{"label": "Edema", "x": x, "y": y, "width": w, "height": h} for x, y, w, h in marked]
        rows.append({
            "image_path": f"{number}.png", "study_id": f"d:{number}", "patient_id": f"d:{number}", "dataset": "d",
            "view": "PA", "split": "test", "source": f"{number}.png", "width": SIDE, "height": SIDE,
            "boxes": boxes_text(stored), "report": "There is pulmonary edema.",
        })  # fmt: skip
    write_manifest(pd.DataFrame(rows).assign(**columns), folder / "manifest.parquet")
    return folder


class Seer:
    """Stands for a run whose image embedding is what the picture shows; texts are looked up."""

    def __init__(self, texts: dict[str, np.ndarray], dim: int = 11, scale: float = 1.0) -> None:
        self.texts, self.dim, self.scale, self.temperature = texts, dim, scale, 0.1
        objective = SimpleNamespace(weight_global=1.0, weight_report=1.0)
        data = SimpleNamespace(image_size=SIDE, text="auto")
        self.recipe = SimpleNamespace(objective=objective, data=data)
        self.task = SimpleNamespace(model=torch.nn.Linear(1, 1), to=lambda _: None)

    def embed_tensors(self, images: torch.Tensor) -> np.ndarray:
        top, bottom = (images[:, 0, row, 1::4][:, :8].sign().numpy() for row in (2, SIDE // 2 + 2))
        return unit(np.concatenate([top[:, :3], bottom], axis=1).astype(np.float32))

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        return unit(np.stack([self.texts[text] for text in texts]).astype(np.float32))


class Blind(Seer):
    """Embeds everything at random."""

    def embed_tensors(self, images: torch.Tensor) -> np.ndarray:
        self.rng = getattr(self, "rng", np.random.default_rng(0))
        return unit(self.rng.normal(size=(len(images), self.dim)).astype(np.float32))


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def code_of(row: int, labels: Sequence[float]) -> np.ndarray:
    """What :class:`Seer` sees in a picture of :func:`write_labelled`."""
    shown = [1.0 if value == 1 else -1.0 for value in [*labels, 0, 0, 0][:3]]
    return np.array([*shown, *(1.0 if row >> bit & 1 else -1.0 for bit in range(8))])


def frozen(pretrained: Any, kind: type[FrozenEncoder] = FrozenEncoder, resize: int = SIDE) -> FrozenEncoder:
    settings = ImageEncoderSettings(name="resnet18", channels=1, options={"channels": [8, 8, 8, 8]})
    torch.manual_seed(0)
    encoder = ImageEncoder(settings, SIDE)
    return kind("seer", encoder, SIDE, resize, pretrained=pretrained)


def protocol_of(task: str, settings: dict[str, Any] | None = None, **more: Any) -> EvaluationProtocol:
    content = {"id": "t/v1", "title": "t", "task": task, "split": {"rule": "any"}, "settings": settings or {}}
    return EvaluationProtocol.model_validate(content | more)


def job_of(protocol: EvaluationProtocol, folder: Path, encoder: FrozenEncoder) -> Job:
    task = get_task(protocol.task)
    data = TaskData(protocol, folder, encoder.image_size, encoder.resize)
    assert task.lacks(data, encoder) == ""
    settings = task.settings.model_validate(protocol.settings)
    return Job(protocol, settings, encoder, data, (Cell(),), folder, folder, "cpu", lambda *_: None)


def predict(protocol: EvaluationProtocol, folder: Path, encoder: FrozenEncoder) -> Predictions:
    ((cell, predictions),) = get_task(protocol.task).run(job_of(protocol, folder, encoder))
    assert cell == Cell()
    assert len(set(predictions.rows.tolist())) == len(predictions.rows) == len(predictions.patients)
    return predictions


def figures(protocol: EvaluationProtocol, predictions: Predictions, weights: Any = None) -> dict[Measure, float]:
    measures = get_task(protocol.task).measures(predictions)
    counts = np.ones((1, len(predictions.rows))) if weights is None else np.asarray(weights, float)[None]
    return dict(zip(measures.of, measures.compute(counts)[0].tolist(), strict=True))
