"""Tiny datasets and encoders, jobs over them, and a task that only pretends, to try the harness itself."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn

from cmcgns.data.manifest import write_manifest
from cmcgns.data.reports.tokenizer import train_tokenizer
from cmcgns.evaluation.contract import Job, Predictions
from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.protocols import Cell, EvaluationProtocol
from cmcgns.evaluation.tasks import get_task
from cmcgns.metrics.measure import Measure, Measures
from cmcgns.models.image_encoder import ImageEncoder
from cmcgns.pretrained import Pretrained
from cmcgns.pretrained.prompts import load_prompts
from cmcgns.settings.config import ImageEncoderSettings
from cmcgns.settings.recipe import load_recipe
from cmcgns.training.task import build_task


def write_pictures(folder: Path, pictures: Iterable[np.ndarray], **columns: Any) -> Path:
    """A prepared dataset of gray pictures, by default all of them test images of patients of their own.

    Args:
        folder: to be made.
        pictures: (h, w) uint8 each.
        columns: of the manifest, a value or a list; what is not stated tells the rows apart.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for number, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        height, width = pixels.shape
        rows.append({
            "image_path": f"images/{number}.png", "study_id": f"d:{number}", "patient_id": f"d:{number}",
            "dataset": "d", "view": "PA", "split": "test", "source": f"{number}.png",
            "width": width, "height": height,
        })  # fmt: skip
    write_manifest(pd.DataFrame(rows).assign(**columns), folder / "manifest.parquet")
    return folder


def parts_of(counts: Sequence[int]) -> list[str]:
    """The column `split`: so many rows of training, validation and test."""
    return [part for part, count in zip(("train", "val", "test"), counts, strict=True) for _ in range(count)]


def write_set(folder: Path, dataset: str = "mine", counts: tuple[int, int, int] = (12, 6, 8), **columns: Any) -> Path:
    """Noise, one image a patient, with one label."""
    rng, parts = np.random.default_rng(0), parts_of(counts)
    place = [number for count in counts for number in range(count)]
    names = [f"{dataset}:{part}{number:02d}" for part, number in zip(parts, place, strict=True)]
    stated = {
        "dataset": dataset, "split": parts, "study_id": names, "patient_id": names,
        "label_Edema": [number % 2 for number in place], "age": [30 + number for number in place],
        "sex": ["F" if number % 2 else "M" for number in place],
    }  # fmt: skip
    pictures = (rng.integers(0, 255, (32, 32), dtype=np.uint8) for _ in parts)
    return write_pictures(folder, pictures, **stated | columns)


def tiny_encoder(name: str = "tiny") -> FrozenEncoder:
    settings = ImageEncoderSettings(name="resnet18", channels=1, options={"channels": [8, 8, 8, 8]})
    return FrozenEncoder(name, ImageEncoder(settings, 32), 32, 32)


class Body(nn.Module):
    """A backbone that loses nothing: the pixels of a block of b × b pixels are the b² channels of its only map."""

    feature_info = (None,)

    def __init__(self, block: int) -> None:
        super().__init__()
        width = block**2
        self.block, self.calls = block, 0
        self.norm = nn.BatchNorm2d(width)
        self.layer1 = nn.Conv2d(width, width, 1)
        with torch.no_grad():
            self.layer1.weight.copy_(torch.eye(width)[:, :, None, None])
            self.layer1.bias.zero_()

    def forward_features(self, images: Tensor) -> Tensor:
        """(B, 1, H, W) -> (B, b², H / b, W / b)."""
        self.calls += 1
        maps: Tensor = self.layer1(self.norm(nn.functional.pixel_unshuffle(images, self.block)))
        return maps

    def forward_intermediates(self, images: Tensor, **options: Any) -> list[Tensor]:
        """The only map."""
        assert options["indices"] == [0]
        return [self.forward_features(images)]


class Encoder(nn.Module):
    """What `FrozenEncoder` expects of an image encoder."""

    def __init__(self, block: int = 4) -> None:
        super().__init__()
        self.body, self.width, self.channels = Body(block), block**2, 1

    def tokens(self, images: Tensor) -> Tensor:
        return self.body.forward_features(images).flatten(2).transpose(1, 2)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled features and tokens."""
        tokens = self.tokens(images)
        return tokens.mean(1), tokens


def oracle(block: int = 4, side: int = 16, resize: int = 0, pretrained: Any = None) -> FrozenEncoder:
    """An encoder that sees everything, alone or as the image half of a run."""
    return FrozenEncoder("oracle", Encoder(block), side, resize or side, pretrained=pretrained)


class PretendTask:
    """Predicts the label itself, but for the cells that it is told to fail at."""

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
    data = recipe.data
    return FrozenEncoder(
        "random tiny", image_encoder, data.image_size, data.resize, pretrained=model, seen_nothing=True
    )


def protocol_of(task: str, settings: dict[str, Any] | None = None, **more: Any) -> EvaluationProtocol:
    content = {"id": "t/v1", "title": "t", "task": task, "split": {"rule": "any"}, "settings": settings or {}}
    return EvaluationProtocol.model_validate(content | more)


def job_of(
    protocol: EvaluationProtocol,
    folder: Path,
    encoder: FrozenEncoder,
    cells: Sequence[Cell] = (),
    work: Path | None = None,
    progress: Callable[[str, float], None] = lambda _text, _share: None,
) -> Job:
    """A job over a prepared dataset.

    Args:
        protocol: see :func:`protocol_of`.
        folder: of the dataset.
        encoder: the frozen one.
        cells: by default one, of all training rows if the task learns.
        work: has the folders `cache` and `scratch`; beside the dataset by default.
        progress: told what is being done.
    """
    data = TaskData(protocol, folder, encoder.image_size, encoder.resize)
    chosen = tuple(cells) or ((Cell(100, 0),) if protocol.learns else (Cell(),))
    work = work or folder.parent
    return Job(encoder, data, chosen, work / "cache", work / "scratch", progress)


def run(job: Job) -> dict[Cell, Predictions]:
    return dict(get_task(job.protocol.task).run(job))


def predict(protocol: EvaluationProtocol, folder: Path, encoder: FrozenEncoder) -> Predictions:
    """Predictions of the only cell."""
    job = job_of(protocol, folder, encoder)
    assert get_task(protocol.task).lacks(job.data, encoder) == ""
    ((cell, predictions),) = run(job).items()
    assert (cell,) == job.cells
    assert len(set(predictions.rows.tolist())) == len(predictions.rows) == len(predictions.patients)
    return predictions


def figures(of: EvaluationProtocol | Job, predictions: Predictions, counts: Any = None) -> dict[Measure, float]:
    """Figures of a cell, its rows drawn once or so often as `counts` says."""
    task = of.protocol.task if isinstance(of, Job) else of.task
    measures = get_task(task).measures(predictions)
    drawn = np.ones((1, len(predictions.rows))) if counts is None else np.asarray(counts, float).reshape(1, -1)
    return dict(zip(measures.of, measures.compute(drawn)[0].tolist(), strict=True))


def same(first: Predictions, second: Predictions) -> bool:
    """Whether all arrays are, bit for bit."""
    assert first.arrays.keys() == second.arrays.keys()
    return all(np.array_equal(first.arrays[name], second.arrays[name]) for name in first.arrays)
