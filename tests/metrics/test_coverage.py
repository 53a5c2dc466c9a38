"""Whether intervals hold the truth in 95 % of simulated test sets, several images a patient included."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pytest

from cmcgns.metrics.intervals import measure_intervals, paired_intervals
from cmcgns.metrics.measure import Measures
from support.bootstrap import of_areas, of_values

NORMAL = NormalDist()


@dataclass(frozen=True)
class Sample:
    """A simulated test set.

    Attributes:
        measures: one figure; two sets of them for a comparison.
        groups: (n,) patients.
        truth: what the figure is in the population.
    """

    measures: tuple[Measures, ...]
    groups: np.ndarray
    truth: float


Draw = Callable[[np.random.Generator], Sample]


def images(rng: np.random.Generator, patients: int) -> np.ndarray:
    """One to five images a patient."""
    return np.repeat(np.arange(patients), rng.integers(1, 6, size=patients))


def area(patients: int, truth: float, prevalence: float, classes: int = 1, better: float | None = None) -> Draw:
    """Normal scores, alike within a patient; the label is the patient's.

    With `better`, two encoders that agree in what is hard: the truth is the difference of their areas.
    """

    def draw(rng: np.random.Generator) -> Sample:
        groups = images(rng, patients)
        labels = (rng.random((patients, classes)) < prevalence)[groups].astype(float)
        patient = rng.normal(size=(patients, classes))[groups]

        def scores(target: float) -> np.ndarray:
            noise = np.sqrt(0.7) * patient + np.sqrt(0.3) * rng.normal(size=labels.shape)
            return noise + np.sqrt(2) * NORMAL.inv_cdf(target) * labels

        targets = [truth] if better is None else [better, truth]
        measures = tuple(of_areas(scores(target), labels) for target in targets)
        return Sample(measures, groups, truth if better is None else better - truth)

    return draw


def accuracy(patients: int, truth: float) -> Draw:
    """Right or wrong, alike within a patient."""

    def draw(rng: np.random.Generator) -> Sample:
        groups = images(rng, patients)
        ease = (rng.normal(size=patients)[groups] + rng.normal(size=len(groups))) / np.sqrt(2)
        return Sample((of_values((ease < NORMAL.inv_cdf(truth)).astype(float)),), groups, truth)

    return draw


def dice(patients: int) -> Draw:
    """Values between 0 and 1, skewed, alike within a patient: a beta (4, 1) distribution, of mean 0.8."""

    def draw(rng: np.random.Generator) -> Sample:
        groups = images(rng, patients)
        ease = (np.sqrt(0.8) * rng.normal(size=patients)[groups]) + np.sqrt(0.2) * rng.normal(size=len(groups))
        uniform = np.array([NORMAL.cdf(each) for each in ease])
        return Sample((of_values(uniform**0.25),), groups, 0.8)

    return draw


def coverage(draw: Draw, simulations: int, resamples: int, by_patient: bool = True) -> float:
    hits = 0
    for seed in range(simulations):
        sample = draw(np.random.default_rng(seed))
        groups = sample.groups if by_patient else np.arange(len(sample.groups))
        if len(sample.measures) == 1:
            table = measure_intervals(sample.measures, groups, None, resamples, seed).mean
        else:
            first, second = sample.measures
            table = paired_intervals([first], [second], groups, resamples, seed).difference
        hits += bool(table.low[0] <= sample.truth <= table.high[0])
    return hits / simulations


CASES = {
    "area, 60 patients": area(60, 0.76, 0.3),
    "area, 200 patients": area(200, 0.86, 0.2),
    "high area, 12 positive patients": area(120, 0.96, 0.1),
    "high area, 60 patients": area(60, 0.96, 0.3),
    "no better than chance": area(120, 0.5, 0.3),
    "mean area of 5 classes": area(120, 0.86, 0.2, classes=5),
    "high mean area, few positives": area(120, 0.96, 0.1, classes=5),
    "accuracy": accuracy(60, 0.85),
    "high accuracy, 30 patients": accuracy(30, 0.95),
    "dice": dice(60),
    "difference of two encoders": area(120, 0.76, 0.3, better=0.82),
    "difference of none": area(120, 0.86, 0.2, better=0.86),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_intervals_hold_the_truth(case: str) -> None:
    assert coverage(CASES[case], simulations=1000, resamples=1000) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("case", ["area, 60 patients", "high area, 12 positive patients", "accuracy", "dice"])
def test_intervals_hold_the_truth_roughly(case: str) -> None:
    assert coverage(CASES[case], simulations=400, resamples=300) == pytest.approx(0.95, abs=0.035)


@pytest.mark.parametrize("case", ["area, 200 patients", "dice"])
def test_drawing_images_instead_of_patients_would_not(case: str) -> None:
    assert coverage(CASES[case], simulations=100, resamples=200, by_patient=False) < 0.85


def test_percentiles_alone_would_not_where_areas_are_high() -> None:
    """Why figures between 0 and 1 are taken to the logit scale."""
    hits = 0
    for seed in range(200):
        sample = CASES["high area, 12 positive patients"](np.random.default_rng(seed))
        table = measure_intervals(sample.measures, sample.groups, None, 300, seed, logit=False).mean
        hits += bool(table.low[0] <= sample.truth <= table.high[0])
    assert hits / 200 < 0.9


def area_by_positives(positives: int, classes: int = 1, truth: float = 0.8) -> Draw:
    """As :func:`area`, with one image each of 150 patients, of whom exactly so many have each finding."""

    def draw(rng: np.random.Generator) -> Sample:
        labels = np.stack([rng.permutation(150) < positives for _ in range(classes)], axis=1).astype(float)
        scores = rng.normal(size=labels.shape) + np.sqrt(2) * NORMAL.inv_cdf(truth) * labels
        return Sample((of_areas(scores, labels),), np.arange(150), truth)

    return draw


@pytest.mark.slow
@pytest.mark.parametrize(("positives", "lowest", "highest"), [(2, 0, 0.75), (3, 0, 0.9), (5, 0.87, 0.96),
                                                              (10, 0.91, 0.97), (30, 0.925, 0.97)])  # fmt: skip
def test_intervals_need_positive_patients(positives: int, lowest: float, highest: float) -> None:
    """Why fewer than 5 have no interval, and fewer than 10 a mark."""
    assert lowest <= coverage(area_by_positives(positives), simulations=1000, resamples=500) <= highest


@pytest.mark.slow
def test_means_over_classes_of_five_positives_each_hold_the_truth() -> None:
    assert coverage(area_by_positives(5, classes=5), simulations=1000, resamples=500) == pytest.approx(
        0.95, abs=0.025
    )
