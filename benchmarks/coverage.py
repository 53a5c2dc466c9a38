"""How often 95 % intervals hold the truth, by the number of patients that a figure rests on.

    python benchmarks/coverage.py

Test sets of 200 patients are drawn, with one image each where nothing else is said, of which so many have the
finding, a mask or a box; the seed of a test set is its number. The share of test sets whose interval (500 resamples)
holds the figure of the population is printed; with 1,000 test sets it is uncertain by 1.4 points (2 standard errors).
The rule that withholds intervals is not applied here. docs/evaluation.md has the table. Ten minutes on a core.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import torch

from cmcgns.metrics.detection import RankedDetections
from cmcgns.metrics.intervals import measure_intervals, paired_intervals
from cmcgns.metrics.measure import Measure, Measures, row_means
from cmcgns.metrics.ranking import FloatArray, RankedScores

PATIENTS = 200
POSITIVES = (1, 2, 3, 5, 7, 10, 20, 30)
POPULATION = 400_000
Draw = Callable[[np.random.Generator, int, int], list[Measures]]
"""Generator, patients and positives -> the figure, or that of two encoders that are compared."""


def images_of(patients: int, most: int) -> np.ndarray:
    """Patient of each image: one to `most` of each, the same in every test set."""
    return np.repeat(np.arange(patients), np.random.default_rng(0).integers(1, most + 1, patients))


def areas(area: float, figure: str, classes: int = 1, better: float | None = None, most: int = 1) -> Draw:
    """Normal scores of equal spread, 0.7 of it shared by a patient's images; two encoders agree in half of it."""
    normal = NormalDist()

    def draw(rng: np.random.Generator, patients: int, positives: int) -> list[Measures]:
        labels = np.zeros((patients, classes))
        for c in range(classes):
            labels[rng.permutation(patients)[:positives], c] = 1
        shown = images_of(patients, most)
        labels, shared, found = labels[shown], rng.normal(size=labels.shape)[shown], []
        for target in (area,) if better is None else (area, better):
            own = rng.normal(size=labels.shape)
            noise = np.sqrt(0.7) * shared + np.sqrt(0.3) * own if most > 1 else np.sqrt(0.5) * (shared + own)
            ranked = RankedScores(noise + np.sqrt(2) * normal.inv_cdf(target) * labels, labels)
            found.append(Measures((Measure(figure),), _mean_of(getattr(ranked, figure))))
        return found

    return draw


def _mean_of(figure: Callable[[np.ndarray], FloatArray]) -> Callable[[np.ndarray], FloatArray]:
    return lambda counts: figure(counts).mean(axis=1, keepdims=True)


def dice(rng: np.random.Generator, patients: int, positives: int) -> list[Measures]:
    """Dice of the images with a mask, a beta (4, 2) distribution."""
    values = np.where(np.arange(patients) < positives, rng.beta(4, 2, patients), np.nan)
    return [row_means({Measure("dice_positive"): values})]


def average_precision(rng: np.random.Generator, patients: int, positives: int) -> list[Measures]:
    """A box on some images, found in 7 of 10; two false alarms an image, of lower scores."""
    found = np.flatnonzero((np.arange(patients) < positives) & (rng.random(patients) < 0.7))
    image = np.concatenate([found, np.repeat(np.arange(patients), 2)])
    scores = rng.normal(size=len(image)) + 2.5 * (np.arange(len(image)) < len(found))
    ranked = RankedDetections(
        image, scores, (np.arange(len(image)) < len(found))[None], (np.arange(patients) < positives).astype(np.int64)
    )
    return [Measures((Measure("map"),), lambda counts: ranked.figures(counts).precision)]


CASES: dict[str, Draw] = {
    "AUROC 0.80": areas(0.8, "auroc"),
    "AUROC 0.80, 1 to 5 images a patient": areas(0.8, "auroc", most=5),
    "AUROC 0.95": areas(0.95, "auroc"),
    "mean AUROC of 5 classes": areas(0.8, "auroc", 5),
    "AUPRC at AUROC 0.80": areas(0.8, "average_precision"),
    "difference of AUROC 0.85 and 0.80": areas(0.85, "auroc", better=0.8),
    "Dice of images with a mask": dice,
    "average precision of boxes": average_precision,
}

IMAGES = {"AUROC 0.80, 1 to 5 images a patient": 5}  # at most of a patient


def truth_of(name: str, positives: int, patients: int = PATIENTS) -> float:
    """The figure of a population of the same share of positives."""
    draw = CASES[name]
    many = POPULATION // patients
    whole = draw(np.random.default_rng(2**31), patients * many, positives * many)
    rows = len(images_of(patients * many, IMAGES.get(name, 1)))
    values = [one.compute(np.ones((1, rows), dtype=np.int32))[0, 0] for one in whole]
    return float(values[0] if len(values) == 1 else values[0] - values[1])


def coverage(name: str, positives: int, simulations: int, resamples: int = 500, patients: int = PATIENTS) -> float:
    """Share of test sets whose interval holds the truth; one without an interval does not."""
    truth, groups, hits = truth_of(name, positives, patients), images_of(patients, IMAGES.get(name, 1)), 0
    draw = CASES[name]
    for seed in range(simulations):
        found = [replace(one, rests_on={}) for one in draw(np.random.default_rng(seed), patients, positives)]
        if len(found) == 1:
            table = measure_intervals(found, groups, None, resamples, seed).mean
        else:
            table = paired_intervals(found[:1], found[1:], groups, resamples, seed).difference
        hits += bool(table.low[0] <= truth <= table.high[0])
    return hits / simulations


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES), metavar="CASE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"| patients | {' | '.join(map(str, POSITIVES))} |\n|---|{'---|' * len(POSITIVES)}")
    for name in options.cases:
        shares = [coverage(name, positives, options.simulations) for positives in POSITIVES]
        print(f"| {name} | {' | '.join(f'{100 * share:.0f}' for share in shares)} |", flush=True)


if __name__ == "__main__":
    main()
