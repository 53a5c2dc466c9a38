"""Label fractions: nested, by patient, stratified."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cmcgns.errors import UserError
from cmcgns.evaluation.bootstrap import patient_index
from cmcgns.evaluation.metrics import IntArray, check_labels


def nested_fraction(groups: npt.ArrayLike, labels: npt.ArrayLike, fraction: float, seed: int) -> IntArray:
    """Rows of a share of the patients; a smaller share of the same seed lies within a larger one.

    All patients are put in one order, and a fraction takes its first patients. Each patient belongs to the
    rarest finding they have (or to "none"); the patients of each such stratum are shuffled and spread
    evenly over the order, so that every beginning has about the same mix. One patient of each finding is
    then moved to the front, rarest finding first: a fraction of at least C patients has a positive of every
    finding that occurs, at the price of a few patients too many with findings in a very small fraction.

    Args:
        groups: (n,) patient id of each row.
        labels: (n, C) in {0, 1, NaN}.
        fraction: of patients, in (0, 1]; rounded, at least one patient.
        seed: of the order. Which patients are taken does not depend on the order of the rows.

    Returns:
        Row numbers, rising.

    Raises:
        UserError: bad ids or labels, lengths that differ, or a fraction outside (0, 1].
    """
    index, patients = patient_index(groups)
    label = check_labels(labels)
    if len(label) != len(index):
        raise UserError(f"{len(label)} rows of labels for {len(index)} patient ids")
    if not 0 < fraction <= 1:
        raise UserError(f"fraction must lie in (0, 1], not {fraction}")
    positive = np.zeros((patients, label.shape[1]), dtype=bool)
    row, column = np.nonzero(label == 1)
    positive[index[row], column] = True
    taken = np.zeros(patients, dtype=bool)
    taken[_patient_order(positive, np.random.default_rng(seed))[: max(1, round(fraction * patients))]] = True
    return np.flatnonzero(taken[index])


def _patient_order(positive: npt.NDArray[np.bool_], rng: np.random.Generator) -> IntArray:
    """Order of patients from which fractions are cut. (P, C) -> (P,)."""
    patients, classes = positive.shape
    by_rarity = positive[:, np.argsort(positive.sum(axis=0), kind="stable")]
    stratum = np.where(by_rarity.any(axis=1), by_rarity.argmax(axis=1), classes)
    shuffled = rng.permutation(patients)
    grouped = shuffled[np.argsort(stratum[shuffled], kind="stable")]
    sizes = np.bincount(stratum, minlength=classes + 1)
    rank = np.arange(patients) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    place = (rank + rng.random(patients)) / sizes[stratum[grouped]]
    order = grouped[np.argsort(place, kind="stable")]
    front: list[int] = []
    for c in range(classes):
        having = by_rarity[:, c]
        if having.any() and not having[front].any():
            front.append(int(order[having[order].argmax()]))
    return np.concatenate([np.array(front, dtype=np.intp), order[~np.isin(order, front)]])
