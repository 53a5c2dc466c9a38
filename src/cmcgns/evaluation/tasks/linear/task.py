"""Linear classification: what a linear layer reads out of frozen features."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from cmcgns.common.errors import UserError
from cmcgns.evaluation.contract import Job, Predictions
from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.features import Floats, pooled_features
from cmcgns.evaluation.protocols import Cell
from cmcgns.evaluation.task_settings.base import PARTS
from cmcgns.evaluation.task_settings.learned import FinetuneSettings, LegacySettings, LinearSettings
from cmcgns.evaluation.tasks.linear.finetune import FinetuneHead
from cmcgns.evaluation.tasks.linear.legacy import LayerData, LayerHead
from cmcgns.evaluation.tasks.linear.probe import choose_dtype, fit_probe
from cmcgns.evaluation.tasks.train_head import Head, checkpoint_of, schedule_of, train_head
from cmcgns.metrics.classes import check_exclusive, facts_of, rare_classes, skipped_classes
from cmcgns.metrics.classification import binary_measures, multiclass_measures
from cmcgns.metrics.measure import Array, Measures
from cmcgns.metrics.ranking import FloatArray, IntArray
from cmcgns.pretrained.zero_shot import probability

_Features = dict[str, Floats]
"""(n, F) of each split."""
Scores = tuple[FloatArray, dict[str, Any]]
"""Log-odds (n, C) of the test rows, and facts."""


class Linear:
    """Area under the ROC curve (or accuracy) of a linear layer on frozen features."""

    def lacks(self, data: TaskData, encoder: FrozenEncoder) -> str:
        """Why this task cannot be done; empty if it can."""
        del encoder  # any will do
        return data.lacks_labels()

    def run(self, job: Job) -> Iterator[tuple[Cell, Predictions]]:
        """Fit one layer a cell; cells that learn from the same rows share the solution of `lbfgs`."""
        settings = job.protocol.settings_as(LinearSettings)
        if settings.outcome == "multiclass":
            for part in PARTS:
                images = getattr(job.data, part)
                check_exclusive(job.data.label_names, images.labels, images.names, part)
        if (settings.finetune or settings.solver == "adamw") and np.isnan(job.data.val.labels).all():
            raise UserError(f"{job.data.name}: no validation image has a label, so nothing can stop the training")
        features = None if settings.finetune else {part: features_of(job, part) for part in PARTS}
        solved: dict[bytes, Scores] = {}
        for number, cell in enumerate(job.cells):
            rows = job.data.fraction_rows(cell)
            check_rows(job, cell, rows)
            if features is None:
                scores, facts = _finetuned(job, settings, rows, cell)
            elif settings.solver == "adamw":
                scores, facts = _trained(job, settings, features, rows, cell)
            else:
                job.progress(f"{cell.name}: logistic regressions", number / len(job.cells))
                key = rows.tobytes()
                if key not in solved:
                    solved = {key: _solved(job, settings, features, rows)}
                scores, facts = solved[key]
            exclusive = np.array(settings.outcome == "multiclass")
            more = {"probabilities": probability(scores, 1.0), "exclusive": exclusive}
            yield cell, predictions(job, rows, scores, facts, **more)
            checkpoint_of(job, cell).unlink(missing_ok=True)

    def measures(self, predictions: Predictions) -> Measures:
        """Figures of one cell: of classes that exclude each other the accuracy, else the area, comes first."""
        arrays = predictions.arrays
        return multiclass_measures(arrays) if bool(arrays["exclusive"]) else binary_measures(arrays)


def features_of(job: Job, part: str) -> Floats:
    """Pooled features (n, C) of a split."""
    images = getattr(job.data, part)

    def progress(share: float) -> None:
        job.progress(f"features of {part}: {round(share * len(images))} of {len(images)} images", 0.0)

    return pooled_features(job.encoder, images, job.cache, progress)


def check_rows(job: Job, cell: Cell, rows: IntArray) -> None:
    """Raise if a fraction is too small for a single label."""
    if np.isnan(job.data.train.labels[rows]).all():
        raise UserError(f"{job.protocol.id}, {cell.name}: none of the {len(rows)} training images has a label")


def predictions(job: Job, rows: IntArray, scores: FloatArray, facts: dict[str, Any], **more: Array) -> Predictions:
    """What a cell leaves behind that learnt from some training rows; scores (n, C) are of the test rows."""
    names, learnt_from, labels = job.data.label_names, job.data.train.labels[rows], job.data.test.labels
    reasons, counted = skipped_classes(names, learnt_from, labels)
    rare, about = rare_classes(names, job.data.prevalence)
    arrays = {"scores": scores, "labels": labels, "label_names": np.array(names), "counted": counted} | more | rare
    return job.predictions(arrays, facts_of(reasons, learnt_from, names) | facts | about)


def _solved(job: Job, settings: LinearSettings, features: _Features, rows: IntArray) -> Scores:
    train, val, start = job.data.train, job.data.val, time.monotonic()
    dtype = choose_dtype(len(rows), features["train"].shape[1])
    if settings.precision != "auto":
        dtype = getattr(torch, settings.precision)
    probe = fit_probe(
        features["train"], train.labels, features["val"], val.labels, settings.l2_grid,
        dtype, job.encoder.device, rows, settings.outcome,
    )  # fmt: skip
    facts = {
        "l2": probe.l2,
        "converged": probe.converged,
        "seconds": round(time.monotonic() - start, 2),
        "validation_of_l2": {f"{l2:g}": round(score, 6) for l2, score in probe.validation.items()},
    }
    return probe.logits(features["test"]), facts


def _trained(job: Job, settings: LinearSettings, features: _Features, rows: IntArray, cell: Cell) -> Scores:
    train, val, start, adamw = job.data.train, job.data.val, time.monotonic(), settings.adamw
    data = LayerData(features["train"], train.labels, rows, features["val"], val.labels, settings.outcome)
    head = LayerHead(data, adamw, cell.seed or 0)
    facts = _train(job, cell, head, adamw)
    return head.logits(features["test"]), facts | {"seconds": round(time.monotonic() - start, 2)}


def _finetuned(job: Job, settings: LinearSettings, rows: IntArray, cell: Cell) -> Scores:
    tuning = settings.finetuning
    head = FinetuneHead(job.encoder, job.data, rows, settings.outcome, tuning, cell.seed or 0)
    facts = _train(job, cell, head, tuning)
    return head.logits(job.data.test), facts | {"finetuned": True}


def _train(job: Job, cell: Cell, head: Head[Any], settings: LegacySettings | FinetuneSettings) -> dict[str, Any]:
    trained = train_head(head, schedule_of(job, cell, settings.epochs, settings.patience))
    validation = round(trained.best, 6)
    return {"epochs": trained.epochs, "best_epoch": trained.best_epoch, "validation_loss": validation}


TASK = Linear()
