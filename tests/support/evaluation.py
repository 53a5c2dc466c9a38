"""A tiny dataset, a tiny encoder and a task that only pretends, to try the harness itself."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from PIL import Image

from cmcgns.data.manifest import write_manifest
from cmcgns.data.reports.tokenizer import train_tokenizer
from cmcgns.evaluation.contract import Job, Predictions
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.protocols import Cell
from cmcgns.metrics.measure import Measure, Measures
from cmcgns.models.image_encoder import ImageEncoder
from cmcgns.pretrained import Pretrained
from cmcgns.pretrained.prompts import load_prompts
from cmcgns.settings.config import ImageEncoderSettings, Settings
from cmcgns.settings.recipe import load_recipe
from cmcgns.training.task import build_task


def write_set(folder: Path, dataset: str = "mine", counts: tuple[int, int, int] = (12, 6, 8), **columns: Any) -> Path:
    """A prepared dataset of noise, one image a patient, with one label."""
    rng = np.random.default_rng(0)
    rows = []
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        for number in range(count):
            name = f"{split}{number:02d}"
            path = folder / "images" / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (32, 32), dtype=np.uint8)).save(path)
            rows.append({
                "image_path": f"images/{name}.png", "study_id": f"{dataset}:{name}",
                "patient_id": f"{dataset}:{name}", "dataset": dataset, "view": "PA", "split": split,
                "source": f"{name}.png", "label_Edema": number % 2, "width": 32, "height": 32,
                "sex": "F" if number % 2 else "M", "age": 30 + number,
            })  # fmt: skip
    write_manifest(pd.DataFrame(rows).assign(**columns), folder / "manifest.parquet")
    return folder


def tiny_encoder(name: str = "tiny") -> FrozenEncoder:
    settings = ImageEncoderSettings(name="resnet18", channels=1, options={"channels": [8, 8, 8, 8]})
    return FrozenEncoder(name, ImageEncoder(settings, 32), 32, 32)


class PretendTask:
    """Predicts the label itself, but for the cells that it is told to fail at."""

    settings: ClassVar[type[Settings]] = Settings
    learns: ClassVar[bool] = True

    def __init__(self, failing: set[str] | None = None) -> None:
        self.failing, self.ran = failing or set(), list[str]()

    def lacks(self, data: Any, encoder: FrozenEncoder) -> str:
        return "" if data.label_names else "no labels"

    def run(self, job: Job) -> Iterator[tuple[Cell, Predictions]]:
        for cell in job.cells:
            if cell.name in self.failing:
                raise RuntimeError(f"cannot do {cell.name}")
            self.ran.append(cell.name)
            test = job.data.test
            scores = test.labels[:, 0] + 0.1 * (cell.seed or 0)
            rows, patients = test.names, test.patients.astype(str)
            yield cell, Predictions(rows, patients, {"scores": scores}, {"rows": len(job.data.fraction_rows(cell))})

    def measures(self, predictions: Predictions) -> Measures:
        scores = predictions.arrays["scores"]
        return Measures((Measure("mean"),), lambda counts: (counts @ scores / counts.sum(1))[:, None])


def tiny_run() -> FrozenEncoder:
    """Both encoders at random, as of a run of the demo's recipe that learnt nothing."""
    recipe = load_recipe("demo", ["image_encoder.options={channels: [8, 8, 8, 16]}", "report_encoder.width=16"])
    sentences = [
        sentence
        for label in load_prompts("phantom").entries.values()
        for sentence in (*label.positive, *label.negative)
    ]
    tokenizer = train_tokenizer(sentences, 200)
    torch.manual_seed(0)
    model = Pretrained(build_task(recipe, len(tokenizer), load_weights=False), tokenizer, recipe)
    image_encoder = model.task.model.image_encoder
    return FrozenEncoder("random tiny", image_encoder, recipe.data.image_size, recipe.data.resize, pretrained=model)
