"""Linear classification: what a linear layer reads out of frozen features."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import torch

from cmcgns.common.errors import UserError
from cmcgns.evaluation.contract import Job, Predictions
from cmcgns.evaluation.data import PARTS, TaskData
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.features import pooled_features
from cmcgns.evaluation.protocols import Cell
from cmcgns.evaluation.protocols.task_settings import (
    LinearSettings,
    Outcome,
)
from cmcgns.evaluation.tasks.linear.finetune import finetune
from cmcgns.evaluation.tasks.linear.legacy import Lesson, train_probe
from cmcgns.evaluation.tasks.linear.probe import choose_dtype, fit_probe, probabilities
from cmcgns.metrics.classification import (
    binary_measures,
    check_exclusive,
    facts_of,
    multiclass_measures,
    skipped_classes,
)
from cmcgns.metrics.measure import Measures
from cmcgns.metrics.ranking import FloatArray, IntArray
from cmcgns.settings.config import Settings

Scores = tuple[FloatArray, dict[str, Any]]
"""Log-odds (n, C) of the test rows, and facts."""


@dataclass(frozen=True)
class _Features:
    """Of the three splits, (n, C) each."""

    train: npt.NDArray[np.float32]
    val: npt.NDArray[np.float32]
    test: npt.NDArray[np.float32]


class Linear:
    """Area under the ROC curve (or accuracy) of a linear layer on frozen features."""

    settings: ClassVar[type[Settings]] = LinearSettings
    learns: ClassVar[bool] = True

    def lacks(self, data: TaskData, encoder: FrozenEncoder) -> str:
        """Why this task cannot be done; empty if it can."""
        del encoder  # any will do
        return lacks_labels(data)

    def run(self, job: Job) -> Iterator[tuple[Cell, Predictions]]:
        """Fit one layer a cell; cells that learn from the same rows share the solution of `lbfgs`."""
        settings = cast(LinearSettings, job.settings)
        if settings.outcome == "multiclass":
            for part in PARTS:
                images = getattr(job.data, part)
                check_exclusive(job.data.label_names, images.labels, images.names, part)
        features = None if settings.finetune else _Features(*(features_of(job, part) for part in PARTS))
        solved: dict[bytes, Scores] = {}
        for number, cell in enumerate(job.cells):
            rows = job.data.fraction_rows(cell)
            check_rows(job, cell, rows)
            if features is None:
                scores, facts = _finetuned(job, settings, rows, number)
            elif settings.solver == "adamw":
                scores, facts = _trained(job, settings, features, rows, number)
            else:
                job.progress(f"{cell.name}: logistic regressions", number / len(job.cells))
                key = rows.tobytes()
                if key not in solved:
                    solved = {key: _solved(job, settings, features, rows)}
                scores, facts = solved[key]
            yield cell, predictions(job, rows, settings.outcome, scores, facts)
            checkpoint(job, cell).unlink(missing_ok=True)

    def measures(self, predictions: Predictions) -> Measures:
        """Figures of one cell: of classes that exclude each other the accuracy, else the area, comes first."""
        arrays = predictions.arrays
        return multiclass_measures(arrays) if bool(arrays["exclusive"]) else binary_measures(arrays)


def lacks_labels(data: TaskData) -> str:
    """Which part has no label at all; empty if all have."""
    columns = [f"label_{name}" for name in data.label_names]
    if not columns:
        return "the manifest has no labels (columns label_…)"
    for part in PARTS:
        if data.frame.loc[data.frame["part"] == part, columns].isna().all(axis=None) and (
            data.protocol.empty_labels == "unknown"
        ):
            return f"no image of {part} has a label"
    return ""


def features_of(job: Job, part: str) -> npt.NDArray[np.float32]:
    """Pooled features (n, C) of a split."""
    images = getattr(job.data, part)

    def progress(share: float) -> None:
        job.progress(f"features of {part}: {round(share * len(images))} of {len(images)} images", 0.0)

    return pooled_features(job.encoder, images, job.cache, progress)


def check_rows(job: Job, cell: Cell, rows: IntArray) -> None:
    """Raise if a fraction is too small for a single label."""
    if np.isnan(job.data.train.labels[rows]).all():
        raise UserError(f"{job.protocol.id}, {cell.name}: none of the {len(rows)} training images has a label")


def predictions(job: Job, rows: IntArray, outcome: Outcome, logits: FloatArray, facts: dict[str, Any]) -> Predictions:
    """What a cell leaves behind."""
    data, names = job.data, job.data.label_names
    learnt_from, labels = data.train.labels[rows], data.test.labels
    reasons, counted = skipped_classes(names, learnt_from, labels)
    arrays = {
        "scores": logits,
        "probabilities": probabilities(logits),
        "labels": labels,
        "label_names": np.array(names),
        "counted": counted,
        "exclusive": np.array(outcome == "multiclass"),
    }
    job.encoder.check_unchanged()
    return Predictions(
        data.test.names, data.test.patients.astype(str), arrays, facts_of(reasons, learnt_from, names) | facts
    )


def checkpoint(job: Job, cell: Cell) -> Path:
    """File of an unfinished training."""
    return job.scratch / f"{cell.name}.pt"


def _solved(job: Job, settings: LinearSettings, features: _Features, rows: IntArray) -> Scores:
    train, val, start = job.data.train, job.data.val, time.monotonic()
    dtype = choose_dtype(len(rows), features.train.shape[1])
    if settings.precision != "auto":
        dtype = getattr(torch, settings.precision)
    probe = fit_probe(
        features.train, train.labels, features.val, val.labels, settings.l2_grid,
        dtype, job.device, rows, settings.outcome,
    )  # fmt: skip
    facts = {
        "l2": probe.l2,
        "converged": probe.converged,
        "seconds": round(time.monotonic() - start, 2),
        "validation_of_l2": {f"{l2:g}": round(score, 6) for l2, score in probe.validation.items()},
    }
    return probe.logits(features.test), facts


def _trained(job: Job, settings: LinearSettings, features: _Features, rows: IntArray, number: int) -> Scores:
    cell, train, val, start = job.cells[number], job.data.train, job.data.val, time.monotonic()

    def progress(epoch: int, loss: float) -> None:
        text = f"{cell.name}: epoch {epoch} of at most {settings.adamw.epochs}, validation loss {loss:.4f}"
        job.progress(text, (number + epoch / settings.adamw.epochs) / len(job.cells))

    lesson = Lesson(features.train, train.labels, rows, features.val, val.labels, settings.outcome)
    key = key_of(job, settings, cell)
    probe = train_probe(lesson, cell.seed or 0, settings.adamw, checkpoint(job, cell), key, progress)
    facts = {
        "epochs": probe.epochs,
        "best_epoch": probe.best_epoch,
        "validation_loss": round(probe.val_loss, 6),
        "seconds": round(time.monotonic() - start, 2),
    }
    return probe.logits(features.test), facts


def _finetuned(job: Job, settings: LinearSettings, rows: IntArray, number: int) -> Scores:
    cell = job.cells[number]

    def progress(epoch: int, loss: float) -> None:
        text = f"{cell.name}: epoch {epoch} of at most {settings.finetuning.epochs}, validation loss {loss:.4f}"
        job.progress(text, (number + epoch / settings.finetuning.epochs) / len(job.cells))

    key = key_of(job, settings, cell)
    return finetune(job, rows, settings.outcome, settings.finetuning, cell, checkpoint(job, cell), key, progress)


def key_of(job: Job, settings: Settings, cell: Cell) -> str:
    """Equal keys: an unfinished training may be gone on with."""
    about = (job.protocol.sha256, job.data.content_sha256, job.encoder.features_sha256, cell.name)
    return hashlib.sha256(" ".join((*about, settings.model_dump_json())).encode()).hexdigest()


TASK = Linear()
