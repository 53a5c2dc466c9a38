"""Zero-shot classification: the test images against sentences that state or deny each label."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np

from cmcgns.evaluation.contract import Job, Predictions
from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.protocols import Cell
from cmcgns.evaluation.task_settings.zero_shot import ZeroShotSettings
from cmcgns.metrics.classes import check_exclusive, rare_classes
from cmcgns.metrics.classification import binary_measures, multiclass_measures
from cmcgns.metrics.measure import Measures
from cmcgns.metrics.ranking import FloatArray
from cmcgns.pretrained.prompts import load_prompts
from cmcgns.pretrained.zero_shot import label_cosines, prompt_prototype, zero_shot_scores


class ZeroShot:
    """Area under the ROC curve (or accuracy) without any training on labels.

    Probabilities are the softmax over positive and negative prompt (multiclass: over the labels' positive prompts)
    at the run's own temperature; they serve Brier score and calibration error, the ranking is that of cosines.
    """

    def lacks(self, data: TaskData, encoder: FrozenEncoder) -> str:
        """Why this task cannot be done; empty if it can."""
        settings = cast(ZeroShotSettings, data.protocol.task_settings)
        return data.lacks_labels(("test",)) or encoder.lacks_score(settings.by)

    def run(self, job: Job) -> Iterator[tuple[Cell, Predictions]]:
        """Scores of every test image."""
        settings, data = cast(ZeroShotSettings, job.settings), job.data
        names, test = data.label_names, data.test
        if settings.outcome == "multiclass":
            check_exclusive(names, test.labels, test.names, "test")
        scores, facts = _scores(job, settings)
        run = job.encoder.run
        temperature = run.temperature if settings.by == "global" else run.spread(settings.by)
        if settings.outcome == "multiclass":
            logits = (scores - scores.max(axis=1, keepdims=True)) / temperature
            chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        else:
            chances = 0.5 * (1 + np.tanh(scores / (2 * temperature)))  # softmax of two, without overflow
        facts |= {"skipped": _undefined(names, test.labels)}
        facts |= {"temperature": temperature, "unlabelled_images": int(np.isnan(test.labels).all(axis=1).sum())}
        rare, about = rare_classes(names, data.prevalence)
        arrays = rare | {
            "scores": scores,
            "probabilities": chances,
            "labels": test.labels,
            "label_names": np.array(names),
            "counted": np.ones(len(names), dtype=bool),
            "exclusive": np.array(settings.outcome == "multiclass"),
        }
        for cell in job.cells:
            yield cell, job.predictions(arrays, facts | about)

    def measures(self, predictions: Predictions) -> Measures:
        """Figures: of labels that exclude each other the accuracy, else the area, comes first."""
        arrays = predictions.arrays
        return multiclass_measures(arrays) if bool(arrays["exclusive"]) else binary_measures(arrays)


def _scores(job: Job, settings: ZeroShotSettings) -> tuple[FloatArray, dict[str, Any]]:
    """(n, C) of every test image with every label, and the sentences for the record."""
    book, names = load_prompts(settings.prompts, settings.ensemble), job.data.label_names
    model, encoder, pixels = job.encoder.run, job.encoder, job.data.test.pixels
    positive, negative = [book.of(name).positive for name in names], [book.of(name).negative for name in names]
    facts = book.facts(names, "positive", "negative")
    if settings.by != "global":
        batches = encoder.batches(pixels, lambda share: job.progress("test images", share))
        states, denies = model.prompt_scores(batches, (positive, negative), settings.by)
        return states if settings.outcome == "multiclass" else states - denies, facts
    images = encoder.embed_pixels(pixels, lambda share: job.progress("test images", share))
    sides = [[prompt_prototype(model.embed_text(texts))[None] for texts in side] for side in (positive, negative)]
    if settings.outcome == "multiclass":
        return label_cosines(images, sides[0]), facts
    return zero_shot_scores(images, sides[0], sides[1]), facts


def _undefined(names: list[str], labels: FloatArray) -> dict[str, str]:
    """Labels without an area, and why."""
    lacking = {kind: ~(labels == value).any(axis=0) for kind, value in (("negative", 0), ("positive", 1))}
    return {
        names[c]: f"no {kind} among the test rows" for kind, none in lacking.items() for c in np.flatnonzero(none)
    }


TASK = ZeroShot()
