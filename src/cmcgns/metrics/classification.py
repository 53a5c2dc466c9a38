"""Classification of images: areas, agreement of the likeliest class, calibration; and of their patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from cmcgns.common.errors import UserError
from cmcgns.metrics.calibration import calibration_measures
from cmcgns.metrics.classes import NOT_LEARNT, POSITIVE, by_class, class_mean, left_out_classes, means_and_classes
from cmcgns.metrics.measure import Array, Measure, Measures, joined, row_means
from cmcgns.metrics.ranking import FloatArray, RankedScores

ONE_SCORE = "all test rows have one score"


def binary_measures(arrays: Mapping[str, Array]) -> Measures:
    """Areas under the ROC and the precision-recall curve, mean and per class, and calibration if there is any.

    Args:
        arrays: `scores` (n, C), higher means more likely; `labels` (n, C) 1, 0 or NaN; `label_names` (C,); `counted`
            (C,) whether the class was learnt; optionally `probabilities` (n, C), and `left_out` (C,) of
            :func:`left_out_of_mean`, by default of the classes without an area, and `rare` (C,) true for the classes
            that have a mean of their own (`auroc_rare`), where one of them counts in the mean over all.
    """
    names = arrays["label_names"].tolist()
    labels = np.where(arrays["counted"], arrays["labels"], np.nan)
    left_out = left_out_classes(arrays)
    parts = [_ranking(arrays["scores"], labels, names, left_out)]
    if "probabilities" in arrays:
        parts.append(calibration_measures(arrays["probabilities"], labels, names, left_out=left_out))
    rare = np.flatnonzero(arrays.get("rare", np.zeros(len(names), dtype=bool)))
    if len(names) > 1 and (left_out[rare] == "").any():  # of a single class it would repeat its area
        parts.append(_rare_mean(arrays["scores"][:, rare], labels[:, rare], [names[c] for c in rare], left_out[rare]))
    return joined(parts)


def multiclass_measures(arrays: Mapping[str, Array]) -> Measures:
    """Accuracy and macro F1 of the likeliest class, then what :func:`binary_measures` gives of each against the rest.

    Args:
        arrays: as of :func:`binary_measures`; every row has exactly one label 1.
    """
    return joined([_agreement(arrays), binary_measures(arrays)])


def area_measures(
    scores: Array, labels: FloatArray, names: Sequence[str], left_out: Array, metric: str = "auroc"
) -> Measures:
    """Area under the ROC curve, mean and per class, alone.

    Args:
        scores: (n, C), higher means more likely.
        labels: (n, C) 1, 0 or NaN.
        names: C.
        left_out: (C,) of :func:`cmcgns.metrics.classes.left_out_of_mean`.
        metric: what the area is called.
    """
    ranked = RankedScores(scores, labels)
    return means_and_classes([metric], lambda counts: [ranked.auroc(counts)], labels, names, left_out)


def _rare_mean(scores: Array, labels: FloatArray, names: Sequence[str], left_out: Array) -> Measures:
    """The mean of :func:`area_measures`, without its classes."""
    ranked, mean = RankedScores(scores, labels), Measure("auroc_rare")

    def compute(counts: npt.NDArray[np.generic]) -> FloatArray:
        return class_mean(ranked.auroc(counts), left_out)[:, None]

    found = by_class((mean,), compute, labels, names, left_out)
    said = f"mean over {', '.join(name for name, reason in zip(names, left_out, strict=True) if not reason)}"
    return replace(found, notes={mean: ". ".join(part for part in (said, found.notes.get(mean, "")) if part)})


def _ranking(scores: Array, labels: FloatArray, names: Sequence[str], left_out: Array) -> Measures:
    ranked = RankedScores(scores, labels)

    def compute(counts: npt.NDArray[np.generic]) -> list[FloatArray]:
        return [ranked.auroc(counts), ranked.average_precision(counts)]

    found = means_and_classes(["auroc", "auprc"], compute, labels, names, left_out)
    known = ~np.isnan(labels)
    flat = [name for c, name in enumerate(names) if known[:, c].sum() > 1 and np.ptp(scores[known[:, c], c]) == 0]
    said = {one: _with(found.notes.get(one, ""), one, flat) for one in found.of if flat and one.label in ("", *flat)}
    return replace(found, notes={**found.notes, **said})


def _with(note: str, of: Measure, flat: Sequence[str]) -> str:
    """A note that also says whose scores are the same for every row: an area of 0.5 by ties alone is no finding."""
    text = ONE_SCORE if of.label else f"{ONE_SCORE} of {', '.join(flat)}"
    return ". ".join(part for part in (note, text) if part)


def _agreement(arrays: Mapping[str, Array]) -> Measures:
    names = arrays["label_names"].tolist()
    truth = np.asarray(arrays["labels"] == 1, dtype=np.float64)
    chosen = np.asarray(arrays["scores"].argmax(axis=1)[:, None] == np.arange(len(names)), dtype=np.float64)
    cells = np.concatenate(
        [truth * chosen, truth + chosen], axis=1
    )  # of each class: hits, and twice what F1 divides by
    left_out = left_out_classes(arrays)
    of = (Measure("macro_f1"), *(Measure("f1", name) for name in names))

    def compute(counts: npt.NDArray[np.generic]) -> FloatArray:
        hits, either = np.split(np.asarray(counts, dtype=np.float64) @ cells, 2, axis=1)
        f1 = np.divide(2 * hits, either, out=np.full_like(hits, np.nan), where=either > 0)
        return np.concatenate([class_mean(f1, left_out)[:, None], f1], axis=1)

    accuracy = Measure("accuracy")
    unlearnt = [name for name, learnt in zip(names, arrays["counted"].tolist(), strict=True) if not learnt]
    notes = {accuracy: f"{NOT_LEARNT} {', '.join(unlearnt)}"} if unlearnt else {}
    right = replace(row_means({accuracy: (truth * chosen).sum(axis=1)}), notes=notes)
    return joined([right, by_class(of, compute, arrays["labels"], names, left_out)])


def patch_measures(arrays: Mapping[str, Array]) -> Measures:
    """Average precision (`ap`) over all patches, by finding and its mean, and the share of positive patches.

    The share is the average precision of scores at random (`ap_chance`). The mean leaves out findings with too few
    positive patients.

    Args:
        arrays: `scores` (n, P, K), higher means more likely; `patch_labels` (n, P, K) 1, 0 or NaN; `labels` (n, K)
            whether an image has a positive patch; `label_names` (K,); `counted` (K,) whether the finding was learnt;
            `positives_alone`; optionally `left_out` (K,) of :func:`cmcgns.metrics.classes.left_out_of_mean`.

    Raises:
        UserError: scores and labels of unlike shapes, or a labelled score that is NaN.
    """
    scores, truth, names = arrays["scores"], arrays["patch_labels"], arrays["label_names"].tolist()
    if scores.shape != truth.shape or scores.ndim != 3:
        raise UserError(f"scores {scores.shape} and labels {truth.shape} of patches must have one shape, (n, P, K)")
    _, patches, findings = scores.shape
    known = np.where(arrays["counted"], truth.astype(np.float64), np.nan)
    ranked = RankedScores(scores.reshape(-1, findings), known.reshape(-1, findings), patches)
    positive, judged = (known == 1).sum(axis=1), (~np.isnan(known)).sum(axis=1)

    def compute(counts: npt.NDArray[np.generic]) -> list[FloatArray]:
        weights = np.asarray(counts, dtype=np.float64)
        total = weights @ judged
        share = np.divide(weights @ positive, total, out=np.full_like(total, np.nan), where=total > 0)
        return [ranked.average_precision(counts), share]

    metrics = ["ap", "ap_chance"]
    return means_and_classes(metrics, compute, arrays["labels"], names, left_out_classes(arrays), POSITIVE)
