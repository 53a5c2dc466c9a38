"""From kept predictions to result rows: how many rows each figure is about, and why one has no interval."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from cmcgns.evaluation import figures, run
from cmcgns.evaluation.contract import Job, Predictions
from cmcgns.evaluation.protocols import Cell
from cmcgns.evaluation.results import ResultRow
from cmcgns.evaluation.run import EvaluateOptions
from cmcgns.evaluation.select import choose
from cmcgns.metrics.classification import binary_measures
from cmcgns.metrics.interval_table import NARROW, NO_VARIATION
from cmcgns.metrics.measure import Measure, Measures, row_means
from cmcgns.reporting.evaluation import command
from support.evaluation import PretendTask, tiny_encoder, write_set
from support.result_rows import read_results

TEST = 24  # test images, two of each patient


class Classes(PretendTask):
    """Edema is seen without fail; Mass is stated for 18 of the 24 images, present in six, and guessed."""

    def run(self, job: Job) -> Iterator[tuple[Cell, Predictions]]:
        test, mass = job.data.test, np.tile([1, 0, 0, 0, 1, 0, 1, 0, 0, *[np.nan] * 3], 2)
        labels = np.column_stack([np.arange(TEST) % 2, mass])
        arrays = {
            "scores": np.column_stack([labels[:, 0], np.random.default_rng(1).random(TEST)]),
            "labels": labels,
            "label_names": np.array(["Edema", "Mass"]),
            "counted": np.ones(2, dtype=bool),
        }
        for cell in job.cells:
            yield cell, Predictions(test.names, test.patients.astype(str), arrays, {})

    def measures(self, predictions: Predictions) -> Measures:
        return binary_measures(predictions.arrays)


class Phrases(PretendTask):
    """Two phrases an image, the second of them about Mass; one of these is nowhere to be judged."""

    def run(self, job: Job) -> Iterator[tuple[Cell, Predictions]]:
        test = job.data.test
        rows = [f"{name}\t{label}" for name in test.names for label in ("Edema", "Mass")]
        values = np.random.default_rng(2).random(2 * TEST)
        values[3] = np.nan
        arrays = {"pointing": values, "labels": np.array(["Edema", "Mass"] * TEST)}
        for cell in job.cells:
            yield cell, Predictions(np.array(rows), np.repeat(test.patients.astype(str), 2), arrays, {})

    def measures(self, predictions: Predictions) -> Measures:
        values, labels = predictions.arrays["pointing"], predictions.arrays["labels"]
        named = {Measure("pointing", str(x)): np.where(labels == x, values, np.nan) for x in np.unique(labels)}
        return row_means({Measure("pointing"): values} | named)


def judged(task: PretendTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], ResultRow]:
    """Rows over all patients by metric and class, as they are written."""
    patients = [f"p{number}" for number in range(18)] + [f"t{number // 2}" for number in range(TEST)]
    data = write_set(tmp_path / "data", counts=(12, 6, TEST), patient_id=patients)
    for module in (run, figures):
        monkeypatch.setattr(module, "get_task", lambda name: task)
    options, out = EvaluateOptions((100.0,), 1), tmp_path / "out"
    command.judge_encoder(tiny_encoder(), choose("linear/v1", [data]), out, options, Console(quiet=True))
    return {(row.metric, row.label): row for row in read_results(out) if row.seed is None and not row.group}


def test_rows_of_a_class_are_those_with_its_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = judged(Classes(), tmp_path, monkeypatch)
    for metric in ("auroc", "auprc"):
        counts = {
            label: (row.n, row.positives, row.patients) for (name, label), row in found.items() if name == metric
        }
        assert counts == {"": (TEST, None, 12), "Edema": (TEST, 12, 12), "Mass": (18, 6, 10)}


def test_phrases_of_a_class_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = judged(Phrases(), tmp_path, monkeypatch)
    counts = {label: (row.n, row.positives, row.patients) for (_, label), row in found.items()}
    assert counts == {"": (2 * TEST, None, 12), "Edema": (TEST, None, 12), "Mass": (TEST - 1, None, 12)}


class Halves(Classes):
    """Mass was not learnt; both classes get a probability of one half."""

    def run(self, job: Job) -> Iterator[tuple[Cell, Predictions]]:
        for cell, found in super().run(job):
            more = {"probabilities": np.full((TEST, 2), 0.5), "counted": np.array([True, False])}
            yield cell, replace(found, arrays=found.arrays | more)


def test_a_class_that_was_not_learnt_is_in_no_reliability_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = judged(Halves(), tmp_path, monkeypatch)
    (curve,) = figures.reliability_of(tmp_path / "out", {row.protocol for row in found.values()})
    assert (curve.predicted, curve.observed, curve.count) == ((0.5,), (0.5,), (TEST,))


def test_a_figure_without_variation_says_so_in_the_results_and_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = judged(Classes(), tmp_path, monkeypatch)
    perfect, guessed = found["auroc", "Edema"], found["auroc", "Mass"]
    assert (perfect.value, perfect.low, perfect.high, perfect.resamples) == (1.0, None, None, 0)
    assert NO_VARIATION in perfect.note
    assert guessed.low is not None
    assert guessed.resamples > 0
    assert NO_VARIATION not in guessed.note
    assert guessed.support == 6
    assert NARROW in guessed.note
    for name in ("report.html", "report.md"):
        assert NO_VARIATION in (tmp_path / "out" / name).read_text("utf-8")
