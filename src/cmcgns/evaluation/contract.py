"""What a task is told, what it leaves behind, and how figures are made of it.

A task (linear probe, detection, …) turns a frozen encoder and prepared images into predictions for every test row.
Predictions are kept; every figure, interval, subgroup and paired comparison is computed from them afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cmcgns.common.errors import UserError
from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.protocols import Cell, EvaluationProtocol
from cmcgns.evaluation.task_settings import find_task_settings
from cmcgns.metrics.classes import left_out_of_mean, needed_kinds
from cmcgns.metrics.measure import Array, Measures
from cmcgns.metrics.ranking import BoolArray, IntArray


@dataclass(frozen=True)
class Predictions:
    """What a cell leaves behind.

    Attributes:
        rows: (n,) ids of what was judged, unlike each other: `ImageSet.names`, and for parts of an image (phrases,
            reports) a tab and whatever tells them apart behind it.
        patients: (n,) patient ids.
        arrays: by name; numbers, Booleans or text (no objects), of any shape.
        facts: JSON values for the record: chosen L2, epochs, seconds, classes that were skipped and why.
    """

    rows: npt.NDArray[np.str_]
    patients: npt.NDArray[np.str_]
    arrays: Mapping[str, Array]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def judged(self) -> dict[str, list[Any]]:
        """What was judged, in words and as lists: only figures of the same are compared.

        Patches are those of an encoder's own grid, and with them the findings that fill one.
        """
        what = {"rows": self.rows.tolist(), "patients": self.patients.tolist()}
        if "patch_labels" in self.arrays:
            what |= {"patches": list(self.arrays["patch_labels"].shape), "findings": self.arrays["counted"].tolist()}
        return what


@dataclass(frozen=True)
class Job:
    """What a task is told.

    Attributes:
        encoder: the frozen encoder, on the device where to compute.
        data: what is to be done, and images, labels, boxes, masks of the three splits.
        cells: what is still to be computed.
        cache: folder for what can be computed again (features by weight hash); shared by all calls.
        scratch: folder of this protocol's own unfinished work (to go on with an interrupted training).
        progress: called with a line of text and a share in [0, 1].
    """

    encoder: FrozenEncoder
    data: TaskData
    cells: tuple[Cell, ...]
    cache: Path
    scratch: Path
    progress: Callable[[str, float], None]

    @property
    def protocol(self) -> EvaluationProtocol:
        """What is to be done."""
        return self.data.protocol

    def predictions(
        self, arrays: Mapping[str, Array], facts: Mapping[str, Any], rows: IntArray | slice = slice(None)
    ) -> Predictions:
        """What a cell leaves behind of some test images, by default all, once it is sure that no weight has moved."""
        self.encoder.check_unchanged()
        test = self.data.test
        return Predictions(test.names[rows], test.patients[rows].astype(str), arrays, facts)


class Task(Protocol):
    """One kind of evaluation."""

    def lacks(self, data: TaskData, encoder: FrozenEncoder) -> str:
        """Why this task cannot be done (no boxes, no report encoder …); empty if it can."""
        ...

    def run(self, job: Job) -> Iterator[tuple[Cell, Predictions]]:
        """Predictions of every cell of the job, each as soon as it is done."""
        ...

    def measures(self, predictions: Predictions) -> Measures:
        """Figures of one cell."""
        ...


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


def primary_of(wanted: str, metrics: Sequence[str]) -> str:
    """The metric that stands for the others: the wanted one where it is among them, else the first."""
    return wanted if wanted in metrics else metrics[0]


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
