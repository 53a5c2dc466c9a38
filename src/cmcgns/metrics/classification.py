"""Figures of classification, and the classes that have none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cmcgns.common.errors import UserError
from cmcgns.metrics.calibration import calibration_measures
from cmcgns.metrics.measure import Array, Measure, Measures
from cmcgns.metrics.ranking import FloatArray, RankedScores, mean_over_classes

_NEGATIVE, _POSITIVE = "negative", "positive"


def binary_measures(arrays: Mapping[str, Array]) -> Measures:
    """Areas under the ROC and the precision-recall curve, mean and per class, and calibration if there is any.

    Args:
        arrays: `scores` (n, C), higher means more likely; `labels` (n, C) 1, 0 or NaN; `label_names` (C,); `counted`
            (C,) whether the class was learnt; optionally `probabilities` (n, C).
    """
    names, labels = _counted(arrays)
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


def joined(parts: Sequence[Measures]) -> Measures:
    """Several groups of figures as one."""

    def compute(counts: npt.NDArray[np.generic]) -> FloatArray:
        return np.concatenate([part.compute(counts) for part in parts], axis=1)

    return Measures(tuple(measure for part in parts for measure in part.of), compute)


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
        for value, kind in ((0, _NEGATIVE), (1, _POSITIVE)):
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


def _counted(arrays: Mapping[str, Array]) -> tuple[list[str], FloatArray]:
    """Names, and labels with those of classes left out that nothing was learnt about."""
    names = [str(name) for name in arrays["label_names"]]
    return names, np.where(arrays["counted"], arrays["labels"], np.nan)


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
    names = [str(name) for name in arrays["label_names"]]
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
