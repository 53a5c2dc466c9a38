"""Calibration: do predicted probabilities come true?

Brier score (Brier, Monthly Weather Review 78:1-3, 1950): mean squared distance of probability and label.

Expected calibration error, state of the positive class: probabilities are put in 15 bins of equal width; the error
is the mean over the rows of |mean probability - share of positives| of their bin (Naeini, Cooper and Hauskrecht,
AAAI 2015; 15 bins as Guo et al., ICML 2017, who bin the confidence of the chosen class instead). It is biased
upwards when bins hold few rows: compare it only between models judged on the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cmcgns.common.errors import UserError
from cmcgns.metrics.classes import by_class, class_mean
from cmcgns.metrics.measure import Array, Measure, Measures
from cmcgns.metrics.ranking import FloatArray, IntArray, check_labels

BINS = 15


def calibration_measures(
    probabilities: npt.ArrayLike,
    labels: npt.ArrayLike,
    names: Sequence[str] = (),
    left_out: Array | None = None,
) -> Measures:
    """Brier score and expected calibration error, mean over the classes and per class.

    Args:
        probabilities: (n, C) of the positive state of each class, in [0, 1].
        labels: (n, C) in {0, 1, NaN}; a NaN leaves the row out for that class alone.
        names: C names of the classes; empty: their numbers.
        left_out: (C,) of :func:`left_out_of_mean`; None: a class counts in the mean if it has a label.

    Returns:
        2 + 2 C figures: `brier`, `ece`, then both of each class. NaN where nothing with a label has weight.

    Raises:
        UserError: shapes differ, a label is none of 0, 1, NaN, or a labelled probability is not in [0, 1].
    """
    probability, label = _check_probabilities(probabilities, labels)
    classes = label.shape[1]
    if names and len(names) != classes:
        raise UserError(f"{len(names)} names for {classes} classes")
    named = list(names) or [str(c) for c in range(classes)]
    left = np.where(np.isnan(label).all(axis=0), "no label", "") if left_out is None else left_out
    of = [Measure("brier"), Measure("ece")]
    for name in named:
        of += [Measure("brier", name), Measure("ece", name)]

    def compute(counts: npt.NDArray[np.generic]) -> FloatArray:
        weights = np.asarray(counts, dtype=np.float64)
        found = [_brier_and_ece(weights, probability[:, c], label[:, c]) for c in range(classes)]
        per_class = np.stack(found, axis=2)
        mean = class_mean(per_class, left)
        return np.concatenate([mean, per_class.transpose(0, 2, 1).reshape(len(weights), -1)], axis=1)

    return by_class(tuple(of), compute, label, named, left)


def reliability(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[FloatArray, FloatArray, IntArray]:
    """What a reliability diagram draws; a bin holds its lower edge, the last one also 1.

    Args:
        probabilities: (n,) in [0, 1].
        labels: (n,) in {0, 1, NaN}.

    Returns:
        Of the B bins that hold a row with a label, (B,) each: mean probability, share of positives, rows.

    Raises:
        UserError: as :func:`calibration_measures`.
    """
    probability, label = (
        each[:, 0] for each in _check_probabilities(*(np.reshape(each, (-1, 1)) for each in (probabilities, labels)))
    )
    known = ~np.isnan(label)
    p, y, place = probability[known], label[known], _bin_of(probability[known])
    rows, p_sum, y_sum = (np.bincount(place, weights, minlength=BINS) for weights in (None, p, y))
    used = rows > 0
    return p_sum[used] / rows[used], y_sum[used] / rows[used], rows[used].astype(np.intp)


def _check_probabilities(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    probability, label = np.asarray(probabilities, dtype=np.float64), check_labels(labels)
    if probability.shape != label.shape:
        raise UserError(f"probabilities {probability.shape} and labels {label.shape} must have one shape, (n, C)")
    wrong = ~np.isnan(label) & ~((probability >= 0) & (probability <= 1))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise UserError(f"row {row}, class {column}: {probability[row, column]:g} is no probability (0 to 1)")
    return probability, label


def _bin_of(probability: FloatArray) -> IntArray:
    return np.minimum((probability * BINS).astype(np.intp), BINS - 1)


def _brier_and_ece(weights: FloatArray, probability: FloatArray, label: FloatArray) -> FloatArray:
    """(R, 2) from weights (R, n); everything that is linear in the weights comes from one matrix product."""
    known = np.flatnonzero(~np.isnan(label))
    error = probability[known] - label[known]
    parts = np.zeros((len(label), BINS + 2))
    parts[known, _bin_of(probability[known])] = error
    parts[known, BINS] = error**2
    parts[known, BINS + 1] = 1
    sums = weights @ parts
    total = sums[:, -1]
    wrong = np.stack([sums[:, BINS], np.abs(sums[:, :BINS]).sum(axis=1)], axis=1)
    return np.asarray(np.divide(wrong, total[:, None], out=np.full_like(wrong, np.nan), where=total[:, None] > 0))
