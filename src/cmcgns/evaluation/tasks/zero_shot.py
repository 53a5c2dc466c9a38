"""Zero-shot classification: the test images against sentences that state or deny each label."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np

from cmcgns.evaluation.contract import Job, Predictions
from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.protocols import Cell
from cmcgns.evaluation.protocols.task_settings import ZeroShotSettings
from cmcgns.evaluation.tasks.linear.task import lacks_labels
from cmcgns.metrics.classes import check_exclusive
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
        return lacks_labels(data, ("test",)) or encoder.lacks_joint_space()

    def run(self, job: Job) -> Iterator[tuple[Cell, Predictions]]:
        """Scores of every test image."""
        settings, data = cast(ZeroShotSettings, job.settings), job.data
        names, test = data.label_names, data.test
        if settings.outcome == "multiclass":
            check_exclusive(names, test.labels, test.names, "test")
        positive, negative, facts = _prompts(job, settings)
        images = job.encoder.embed_pixels(test.pixels, lambda share: job.progress("test images", share))
        temperature = job.encoder.run.temperature
        if settings.outcome == "multiclass":
            scores = label_cosines(images, positive)
            logits = (scores - scores.max(axis=1, keepdims=True)) / temperature
            chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        else:
            scores = zero_shot_scores(images, positive, negative)
            chances = zero_shot_scores(images, positive, negative, temperature)
        facts |= {"skipped": _undefined(names, test.labels)}
        facts |= {"temperature": temperature, "unlabelled_images": int(np.isnan(test.labels).all(axis=1).sum())}
        arrays = {
            "scores": scores,
            "probabilities": chances,
            "labels": test.labels,
            "label_names": np.array(names),
            "counted": np.ones(len(names), dtype=bool),
            "exclusive": np.array(settings.outcome == "multiclass"),
        }
        for cell in job.cells:
            yield cell, job.predictions(arrays, facts)

    def measures(self, predictions: Predictions) -> Measures:
        """Figures: of labels that exclude each other the accuracy, else the area, comes first."""
        arrays = predictions.arrays
        return multiclass_measures(arrays) if bool(arrays["exclusive"]) else binary_measures(arrays)


def _prompts(job: Job, settings: ZeroShotSettings) -> tuple[list[FloatArray], list[FloatArray], dict[str, Any]]:
    """One direction (1, D) a label for what states it and for what denies it, and the sentences for the record."""
    book, model = load_prompts(settings.prompts), job.encoder.run
    sides: tuple[list[FloatArray], list[FloatArray]] = ([], [])
    said: dict[str, dict[str, list[str]]] = {}
    for label in job.data.label_names:
        entry = book.of(label)
        texts = [list(side if settings.ensemble else side[:1]) for side in (entry.positive, entry.negative)]
        for directions, sentences in zip(sides, texts, strict=True):
            directions.append(prompt_prototype(model.embed_text(sentences))[None])
        said[label] = {"positive": texts[0], "negative": texts[1]}
    unknown = book.unknown(job.data.label_names)
    return *sides, {"prompts": book.name, "sentences": said, "labels_from_template": unknown}


def _undefined(names: list[str], labels: FloatArray) -> dict[str, str]:
    """Labels without an area, and why."""
    lacking = {kind: ~(labels == value).any(axis=0) for kind, value in (("negative", 0), ("positive", 1))}
    return {
        names[c]: f"no {kind} among the test rows" for kind, none in lacking.items() for c in np.flatnonzero(none)
    }


TASK = ZeroShot()
