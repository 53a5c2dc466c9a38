"""Zero-shot classification: the test images against sentences that state or deny each label."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cmcgns.evaluation.contract import Job, Predictions
from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.protocols import Cell
from cmcgns.evaluation.task_settings.of_texts import ZeroShotSettings
from cmcgns.metrics.classes import check_exclusive, rare_classes, undefined_classes
from cmcgns.metrics.classification import binary_measures, multiclass_measures
from cmcgns.metrics.measure import Measures
from cmcgns.pretrained.prompts import load_prompts
from cmcgns.pretrained.zero_shot import probability


class ZeroShot:
    """Area under the ROC curve (or accuracy) without any training on labels.

    Probabilities are the softmax over positive and negative prompt (multiclass: over the labels' positive prompts)
    at the run's own temperature; they serve Brier score and calibration error, the ranking is that of cosines.
    """

    def lacks(self, data: TaskData, encoder: FrozenEncoder) -> str:
        """Why this task cannot be done; empty if it can."""
        return data.lacks_labels(("test",)) or data.protocol.settings_as(ZeroShotSettings).lacked_by(encoder)

    def run(self, job: Job) -> Iterator[tuple[Cell, Predictions]]:
        """Scores of every test image."""
        settings, data = job.protocol.settings_as(ZeroShotSettings), job.data
        names, test = data.label_names, data.test
        if settings.outcome == "multiclass":
            check_exclusive(names, test.labels, test.names, "test")
        book, run = load_prompts(settings.prompts, settings.ensemble), job.encoder.run
        sides = [book.of(name).positive for name in names], [book.of(name).negative for name in names]
        batches = job.encoder.batches(test.pixels, lambda share: job.progress("test images", share))
        states, denies = run.prompt_scores(batches, *sides, settings.by)
        temperature = run.spread(settings.by)
        if settings.outcome == "multiclass":
            scores, logits = states, (states - states.max(axis=1, keepdims=True)) / temperature
            chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        else:
            scores, chances = states - denies, probability(states - denies, temperature)
        facts = book.facts(names, "positive", "negative") | {"skipped": undefined_classes(names, test.labels)}
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


TASK = ZeroShot()
