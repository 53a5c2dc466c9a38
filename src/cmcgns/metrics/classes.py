"""Classes of a test set: which are learnt, which count in a mean over classes, and what their figures rest on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cmcgns.common.errors import UserError
from cmcgns.metrics.measure import LEAST, Array, Kind, Measure, Measures
from cmcgns.metrics.ranking import BoolArray, FloatArray

NOT_LEARNT = "the training rows have no positive or no negative of"
LEFT_OUT = "left out: "
"""Before the classes that a mean leaves out, in the note of the mean."""


def skipped_classes(names: Sequence[str], train: FloatArray, test: FloatArray) -> tuple[dict[str, str], Array]:
    """Classes that cannot be judged, and why; and which of them were learnt at all.

    Args:
        names: C names.
        train: (n, C) labels that were learnt from.
        test: (m, C) labels of the test rows.

    Returns:
        name -> reason, and (C,) whether training had a positive and a negative.
    """
    learnt = (train == 0).any(axis=0) & (train == 1).any(axis=0)
    return undefined_classes(names, test) | undefined_classes(names, train, "training"), learnt


def undefined_classes(names: Sequence[str], labels: FloatArray, part: str = "test") -> dict[str, str]:
    """Classes without a negative or a positive among the labels (n, C) of some rows, and which of them is missing."""
    return {
        names[c]: f"no {kind} among the {part} rows"
        for value, kind in ((0, "negative"), (1, "positive"))
        for c in np.flatnonzero(~(labels == value).any(axis=0)).tolist()
    }


_KINDS = {1: "positive", 0: "negative"}
BOTH, POSITIVE = (1, 0), (1,)
"""Which rows of a class its figure cannot do without: those with and without it, or only those with it."""


def left_out_of_mean(
    labels: FloatArray, counted: BoolArray, patients: npt.ArrayLike, least: int, needed: Sequence[int] = BOTH
) -> Array:
    """Why classes do not count in means over classes, (C,) text; empty for those that do.

    A single class always counts: its mean is its own figure.

    Args:
        labels: (n, C) 1, 0 or NaN of the test rows.
        counted: (C,) whether the class was learnt.
        patients: (n,) ids.
        least: patients that a class must have of each kind that is needed.
        needed: positive and negative patients, or positive ones alone.
    """
    ids = np.asarray(patients)
    alone = labels.shape[1] == 1
    reasons = []
    for c in range(labels.shape[1]):
        amounts = {_KINDS[value]: len(np.unique(ids[labels[:, c] == value])) for value in needed}
        text = "" if counted[c] else f"{NOT_LEARNT} this class"
        for kind, amount in amounts.items():
            if not text and amount < (1 if alone else least):
                text = f"{amount or 'no'} {kind} test patient{'s' * (amount != 1)}"
        reasons.append(text)
    return np.array(reasons, dtype=np.str_)


def needed_kinds(arrays: Mapping[str, Array]) -> Sequence[int]:
    """Positive rows alone where the arrays say so (`positives_alone`), as figures of places in an image do."""
    return POSITIVE if "positives_alone" in arrays else BOTH


def left_out_classes(arrays: Mapping[str, Array]) -> Array:
    """(C,) why classes do not count in means: as the arrays say (`left_out`), else those without a needed row."""
    if "left_out" in arrays:
        return arrays["left_out"]
    labels = arrays["labels"]
    return left_out_of_mean(labels, arrays["counted"], np.arange(len(labels)), 1, needed_kinds(arrays))


RARE = 0.03
"""Prevalence in the training split below which a class is rare."""


def rare_classes(names: Sequence[str], prevalence: FloatArray) -> tuple[dict[str, Array], dict[str, Any]]:
    """Array `rare` (C,), and for the record the rare classes with their prevalence; both empty where none is.

    Args:
        names: C.
        prevalence: (C,) in the training split; NaN where it is not known.
    """
    rare = np.asarray(prevalence < RARE)
    found = {name: float(share) for name, share, is_rare in zip(names, prevalence, rare, strict=True) if is_rare}
    return ({"rare": rare}, {"rare": found}) if found else ({}, {})


def class_mean(per_class: FloatArray, left_out: Array) -> FloatArray:
    """(..., C) -> (...), always of the same classes: NaN where one of them is undefined, or none is left."""
    kept = per_class[..., left_out == ""]
    return np.asarray(kept.mean(axis=-1) if kept.shape[-1] else np.full(kept.shape[:-1], np.nan))


def by_class(
    of: tuple[Measure, ...],
    compute: Callable[[npt.NDArray[np.generic]], FloatArray],
    labels: FloatArray,
    names: Sequence[str],
    left_out: Array,
    needed: Sequence[int] = BOTH,
) -> Measures:
    """Figures of classes, which rest on their positives and negatives, and means, which rest on all that count.

    A mean is not called too narrow because one of its classes is rare: in simulations of five classes with five
    positives each its intervals cover as they should.
    """
    kinds = {
        name: [Kind(f"{'with' if value else 'without'} the finding", labels[:, c] == value) for value in needed]
        for c, name in enumerate(names)
    }
    kept = [name for name, reason in zip(names, left_out, strict=True) if not reason]
    whole = [kind._replace(enough=LEAST) if len(kept) > 1 else kind for name in kept for kind in kinds[name]]
    gone = [f"{name} ({reason})" for name, reason in zip(names, left_out, strict=True) if reason]
    notes = {name: f"not in the mean: {reason}" for name, reason in zip(names, left_out, strict=True) if reason}
    text = f"mean over {len(kept)} of {len(names)} classes; {LEFT_OUT}{', '.join(gone)}" if gone else ""
    rests_on = {one: kinds[one.label] if one.label else whole for one in of}
    return Measures(
        of,
        compute,
        {one: each for one, each in rests_on.items() if each},
        {one: said for one in of if (said := notes.get(one.label, "") if one.label else text)},
    )


def means_and_classes(
    metrics: Sequence[str],
    compute: Callable[[npt.NDArray[np.generic]], Sequence[FloatArray]],
    labels: FloatArray,
    names: Sequence[str],
    left_out: Array,
    needed: Sequence[int] = BOTH,
) -> Measures:
    """Each metric's mean over the C classes, then every class; `compute`: counts (R, n) -> (R, C) of each metric."""

    def columns(counts: npt.NDArray[np.generic]) -> FloatArray:
        both = ((class_mean(each, left_out)[:, None], each) for each in compute(counts))
        return np.concatenate([part for pair in both for part in pair], axis=1)

    of = tuple(Measure(metric, name) for metric in metrics for name in ("", *names))
    return by_class(of, columns, labels, names, left_out, needed)


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
