"""Classification: areas, agreement of the likeliest class, calibration; and the classes that have no figure.

Brier score (Brier, Monthly Weather Review 78:1-3, 1950): mean squared distance of probability and label.

Expected calibration error, state of the positive class: probabilities are put in 15 bins of equal width; the error
is the mean over the rows of |mean probability - share of positives| of their bin (Naeini, Cooper and Hauskrecht,
AAAI 2015; 15 bins as Guo et al., ICML 2017, who bin the confidence of the chosen class instead). It is biased
upwards when bins hold few rows: compare it only between models judged on the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cmcgns.common.errors import UserError
from cmcgns.metrics.measure import Array, Measure, Measures, joined
from cmcgns.metrics.ranking import FloatArray, IntArray, RankedScores, check_labels, mean_over_classes


def binary_measures(arrays: Mapping[str, Array]) -> Measures:
    """Areas under the ROC and the precision-recall curve, mean and per class, and calibration if there is any.

    Args:
        arrays: `scores` (n, C), higher means more likely; `labels` (n, C) 1, 0 or NaN; `label_names` (C,); `counted`
            (C,) whether the class was learnt; optionally `probabilities` (n, C).
    """
    names = arrays["label_names"].tolist()
    labels = np.where(arrays["counted"], arrays["labels"], np.nan)
    parts = [_ranking(arrays["scores"], labels, names)]
    if "probabilities" in arrays:
        parts.append(calibration_measures(arrays["probabilities"], labels, names))
    return joined(parts)


def multiclass_measures(arrays: Mapping[str, Array]) -> Measures:
    """Accuracy and macro F1 of the likeliest class, then what :func:`binary_measures` gives of each against the rest.

    Args:
        arrays: as of :func:`binary_measures`; every row has exactly one label 1.
    """
    return joined([_agreement(arrays), binary_measures(arrays)])


def skipped_classes(names: Sequence[str], train: FloatArray, test: FloatArray) -> tuple[dict[str, str], Array]:
    """Classes that cannot be judged, and why; and which of them were learnt at all.

    Args:
        names: C names.
        train: (n, C) labels that were learnt from.
        test: (m, C) labels of the test rows.

    Returns:
        name -> reason, and (C,) whether training had a positive and a negative.
    """
    reasons: dict[str, str] = {}
    learnt = np.ones(len(names), dtype=bool)
    for part, labels in (("test", test), ("training", train)):
        for value, kind in ((0, "negative"), (1, "positive")):
            lacking = ~(labels == value).any(axis=0)
            reasons |= {names[c]: f"no {kind} among the {part} rows" for c in np.flatnonzero(lacking).tolist()}
            if part == "training":
                learnt &= ~lacking
    return reasons, learnt


def check_exclusive(names: Sequence[str], labels: FloatArray, images: npt.NDArray[np.str_], part: str) -> None:
    """Raise unless every row has exactly one class.

    Raises:
        UserError: names the first row that has none, several, or an unknown one.
    """
    wrong = np.isnan(labels).any(axis=1) | (np.nan_to_num(labels).sum(axis=1) != 1)
    if wrong.any():
        row = int(wrong.argmax())
        stated = ", ".join(f"{name}={value:g}" for name, value in zip(names, labels[row], strict=True))
        raise UserError(
            f"{images[row]} ({part}) has {stated}, but with outcome multiclass each image belongs to exactly one "
            f"class ({int(wrong.sum())} such images): set settings.outcome=binary, or list the right `labels`"
        )


def facts_of(reasons: Mapping[str, str], train: FloatArray, names: Sequence[str]) -> dict[str, Any]:
    """Skipped classes and how much there was to learn from."""
    positives = (train == 1).sum(axis=0)
    return {
        "skipped": dict(reasons),
        "train_images": len(train),
        "train_positives": {name: int(count) for name, count in zip(names, positives, strict=True)},
    }


def _ranking(scores: Array, labels: FloatArray, names: Sequence[str]) -> Measures:
    ranked = RankedScores(scores, labels)
    of = [Measure("auroc"), *(Measure("auroc", name) for name in names)]
    of += [Measure("auprc"), *(Measure("auprc", name) for name in names)]

    def compute(counts: npt.NDArray[np.generic]) -> FloatArray:
        parts = []
        for per_class in (ranked.auroc(counts), ranked.average_precision(counts)):
            parts += [mean_over_classes(per_class)[:, None], per_class]
        return np.concatenate(parts, axis=1)

    return Measures(tuple(of), compute)


def _agreement(arrays: Mapping[str, Array]) -> Measures:
    names = arrays["label_names"].tolist()
    truth = np.asarray(arrays["labels"] == 1, dtype=np.float64)
    chosen = np.asarray(arrays["scores"].argmax(axis=1)[:, None] == np.arange(len(names)), dtype=np.float64)
    cells = np.concatenate(
        [truth * chosen, truth + chosen], axis=1
    )  # of each class: hits, and twice what F1 divides by
    of = (Measure("accuracy"), Measure("macro_f1"), *(Measure("f1", name) for name in names))

    def compute(counts: npt.NDArray[np.generic]) -> FloatArray:
        weights = np.asarray(counts, dtype=np.float64)
        hits, either = np.split(weights @ cells, 2, axis=1)
        f1 = np.divide(2 * hits, either, out=np.full_like(hits, np.nan), where=either > 0)
        rows = weights.sum(axis=1)
        accuracy = np.divide(hits.sum(axis=1), rows, out=np.full_like(rows, np.nan), where=rows > 0)
        return np.concatenate([accuracy[:, None], mean_over_classes(f1)[:, None], f1], axis=1)

    return Measures(of, compute)


BINS = 15


@dataclass(frozen=True)
class Reliability:
    """What a reliability diagram draws.

    Attributes:
        edges: (B + 1,) of the bins; a bin holds its lower edge, the last one also 1.
        probability: (C, B) mean probability of a bin's rows; NaN where a bin is empty.
        positive: (C, B) share of positives among them; NaN where a bin is empty.
        rows: (C, B) rows with a label.
    """

    edges: FloatArray
    probability: FloatArray
    positive: FloatArray
    rows: IntArray


def calibration_measures(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, names: Sequence[str] = (), bins: int = BINS
) -> Measures:
    """Brier score and expected calibration error, mean over the classes and per class.

    Args:
        probabilities: (n, C) of the positive state of each class, in [0, 1].
        labels: (n, C) in {0, 1, NaN}; a NaN leaves the row out for that class alone.
        names: C names of the classes; empty: their numbers.
        bins: of equal width.

    Returns:
        2 + 2 C figures: `brier`, `ece`, then both of each class. NaN where nothing with a label has weight.

    Raises:
        UserError: shapes differ, a label is none of 0, 1, NaN, or a labelled probability is not in [0, 1].
    """
    probability, label = _check_probabilities(probabilities, labels, bins)
    classes = label.shape[1]
    if names and len(names) != classes:
        raise UserError(f"{len(names)} names for {classes} classes")
    of = [Measure("brier"), Measure("ece")]
    for name in names or [str(c) for c in range(classes)]:
        of += [Measure("brier", name), Measure("ece", name)]

    def compute(counts: npt.NDArray[np.generic]) -> FloatArray:
        weights = np.asarray(counts, dtype=np.float64)
        per_class = np.stack(
            [_brier_and_ece(weights, probability[:, c], label[:, c], bins) for c in range(classes)], axis=2
        )
        mean = mean_over_classes(per_class)
        return np.concatenate([mean, per_class.transpose(0, 2, 1).reshape(len(weights), -1)], axis=1)

    return Measures(tuple(of), compute)


def reliability(probabilities: npt.ArrayLike, labels: npt.ArrayLike, bins: int = BINS) -> Reliability:
    """Mean probability and share of positives, bin by bin.

    Args:
        probabilities: (n, C) in [0, 1].
        labels: (n, C) in {0, 1, NaN}.
        bins: B, of equal width.

    Raises:
        UserError: as :func:`calibration_measures`.
    """
    probability, label = _check_probabilities(probabilities, labels, bins)
    sums = np.zeros((3, label.shape[1], bins))
    for c in range(label.shape[1]):
        known = ~np.isnan(label[:, c])
        place, p, y = _bin_of(probability[known, c], bins), probability[known, c], label[known, c]
        for row, weights in enumerate((None, p, y)):
            sums[row, c] = np.bincount(place, weights, minlength=bins)
    rows, p_sum, y_sum = sums
    empty = np.where(rows > 0, rows, np.nan)
    return Reliability(np.linspace(0, 1, bins + 1), p_sum / empty, y_sum / empty, rows.astype(np.intp))


def _check_probabilities(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, bins: int
) -> tuple[FloatArray, FloatArray]:
    probability, label = np.asarray(probabilities, dtype=np.float64), check_labels(labels)
    if bins < 1:
        raise UserError(f"bins must be 1 or more, not {bins}")
    if probability.shape != label.shape:
        raise UserError(f"probabilities {probability.shape} and labels {label.shape} must have one shape, (n, C)")
    wrong = ~np.isnan(label) & ~((probability >= 0) & (probability <= 1))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise UserError(f"row {row}, class {column}: {probability[row, column]:g} is no probability (0 to 1)")
    return probability, label


def _bin_of(probability: FloatArray, bins: int) -> IntArray:
    return np.minimum((probability * bins).astype(np.intp), bins - 1)


def _brier_and_ece(weights: FloatArray, probability: FloatArray, label: FloatArray, bins: int) -> FloatArray:
    """(R, 2) from weights (R, n); everything that is linear in the weights comes from one matrix product."""
    known = np.flatnonzero(~np.isnan(label))
    error = probability[known] - label[known]
    parts = np.zeros((len(label), bins + 2))
    parts[known, _bin_of(probability[known], bins)] = error
    parts[known, bins] = error**2
    parts[known, bins + 1] = 1
    sums = weights @ parts
    total = sums[:, -1]
    wrong = np.stack([sums[:, bins], np.abs(sums[:, :bins]).sum(axis=1)], axis=1)
    return np.asarray(np.divide(wrong, total[:, None], out=np.full_like(wrong, np.nan), where=total[:, None] > 0))
