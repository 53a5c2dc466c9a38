"""Figures of cells that belong together: seeds, and encoders that are compared, over the same rows and classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cmcgns.common.errors import UserError
from cmcgns.evaluation.contract import Predictions, Task
from cmcgns.evaluation.task_settings import find_task_settings
from cmcgns.metrics.classes import left_out_of_mean, needed_kinds
from cmcgns.metrics.measure import Array, Measures
from cmcgns.metrics.ranking import BoolArray


def least_positives(settings: Mapping[str, Any]) -> int:
    """Positive and negative patients that a class must have to count in a mean, of a protocol as it was recorded."""
    task = find_task_settings(settings["task"]).model_validate(settings.get("settings", {}))
    return int(getattr(task, "min_positives", 1))  # 1 where there are no classes


def seed_measures(
    task: Task, predictions: Sequence[Predictions], least: int, mask: BoolArray | None = None
) -> list[Measures]:
    """Figures of each seed, means over the same classes; seeds that predict the same share one object.

    At 100 % of the labels a probe that is solved to convergence does not depend on its seed: it is computed once.

    Args:
        task: makes figures of predictions.
        predictions: one a seed, of one encoder or of several that are compared.
        least: positive and negative patients that a class must have to count in a mean.
        mask: (n,) true for the rows of a subgroup; None: all.

    Raises:
        UserError: the seeds judged different rows.
    """
    found: list[Measures] = []
    more = _left_out(predictions, least, mask)
    for place, one in enumerate(predictions):
        if not np.array_equal(one.rows, predictions[0].rows):
            raise UserError("the seeds of a cell judged different rows: evaluate again into a new folder")
        before = next((k for k in range(place) if _same(one, predictions[k])), None)
        whole = replace(one, arrays={**one.arrays, **more})
        found.append(task.measures(whole) if before is None else found[before])
    return found


def _left_out(predictions: Sequence[Predictions], least: int, mask: BoolArray | None) -> dict[str, Array]:
    """Array `left_out` of what has classes: one that any seed did not learn counts in the mean of none.

    An array `positives_alone` says that a figure needs no rows without the class, as those of places in an image.
    """
    first = predictions[0]
    if not {"label_names", "counted"} <= first.arrays.keys():
        return {}
    rows = slice(None) if mask is None else mask
    counted = np.all([one.arrays["counted"] for one in predictions], axis=0)
    labels, needed = first.arrays["labels"][rows], needed_kinds(first.arrays)
    return {"left_out": left_out_of_mean(labels, counted, first.patients[rows], least, needed)}


def _same(one: Predictions, other: Predictions) -> bool:
    if one.arrays.keys() != other.arrays.keys() or not np.array_equal(one.patients, other.patients):
        return False
    pairs = [(one.arrays[name], other.arrays[name]) for name in one.arrays]
    return all(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs)
