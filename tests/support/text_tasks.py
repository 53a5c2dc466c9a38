"""Datasets whose pictures show their labels, and encoders that see them perfectly, or not at all."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from cmcgns.data.boxes import boxes_text
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.objectives.cmcgns import CMCGNS
from cmcgns.pretrained import Pretrained
from support.evaluation import oracle, write_pictures

SIDE = 32
NAMES = ("Edema", "Pneumothorax", "Cardiomegaly")


def write_labelled(folder: Path, labels: np.ndarray, **columns: Any) -> Path:
    """Pictures of 32 px with one column of pixels a label, white where it is 1, and a code of the row below."""
    pictures = np.zeros((len(labels), SIDE, SIDE), np.uint8)
    for number, row in enumerate(labels):
        for c, value in enumerate(row):
            pictures[number, : SIDE // 2, 4 * c : 4 * c + 4] = 255 * (value == 1)
        for bit in range(8):
            pictures[number, SIDE // 2 :, 4 * bit : 4 * bit + 4] = 255 * (number >> bit & 1)
    stated = {f"label_{name}": values.astype(int) for name, values in zip(NAMES, labels.T, strict=False)}
    patients = [f"d:{number // 2}" for number in range(len(labels))]
    return write_pictures(folder, pictures, **{"patient_id": patients} | stated | columns)


def write_boxed(folder: Path, pictures: Sequence[Sequence[tuple[int, int, int, int]]], **columns: Any) -> Path:
    """Black pictures of 32 px with white boxes x, y, width, height."""
    drawn = np.zeros((len(pictures), SIDE, SIDE), np.uint8)
    for pixels, marked in zip(drawn, pictures, strict=True):
        for x, y, w, h in marked:
            pixels[y : y + h, x : x + w] = 255
    boxes = [
        boxes_text([{"label": "Edema", "x": x, "y": y, "width": w, "height": h} for x, y, w, h in marked])
        for marked in pictures
    ]
    return write_pictures(folder, drawn, **{"boxes": boxes, "report": "There is pulmonary edema."} | columns)


class Attentive(torch.nn.Module):
    """CM-CGNS as far as it is asked which maps it trains."""

    lacks_map, lacks_score, matched = CMCGNS.lacks_map, CMCGNS.lacks_score, CMCGNS.matched

    def __init__(self, settings: SimpleNamespace) -> None:
        super().__init__()
        self.settings = settings


class Seer:
    """Stands for a run whose image embedding is what the picture shows; texts are looked up."""

    lacks, lacks_map, prompt_scores = Pretrained.lacks, Pretrained.lacks_map, Pretrained.prompt_scores
    scores = Pretrained.scores

    def __init__(self, texts: dict[str, np.ndarray], dim: int = 11, scale: float = 1.0) -> None:
        self.texts, self.dim, self.scale, self.temperature = texts, dim, scale, 0.1
        objective = SimpleNamespace(weight_global=1.0, weight_report=1.0, local="own_query")
        data = SimpleNamespace(image_size=SIDE, text="auto")
        self.recipe = SimpleNamespace(objective=objective, data=data)
        self.map = "pooled"
        self.method = SimpleNamespace()  # CM-CGNS, whose attention could make maps
        self.task = torch.nn.ModuleDict({"model": torch.nn.Linear(1, 1), "objective": Attentive(objective)})

    def embed_tensors(self, images: torch.Tensor) -> np.ndarray:
        top, bottom = (images[:, 0, row, 1::4][:, :8].sign().numpy() for row in (2, SIDE // 2 + 2))
        return unit(np.concatenate([top[:, :3], bottom], axis=1).astype(np.float32))

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        return unit(np.stack([self.texts[text] for text in texts]).astype(np.float32))

    def encode_texts(self, texts: Sequence[str]) -> Any:
        both = torch.from_numpy(self.embed_text(texts))
        return both, both

    def spread(self, _by: str) -> float:
        return self.temperature


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


def frozen(pretrained: Any, resize: int = SIDE) -> FrozenEncoder:
    return oracle(4, SIDE, resize, pretrained)
