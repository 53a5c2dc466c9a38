"""What a task is told, what it leaves behind, and how figures are made of it.

A task (linear probe, detection, …) turns a frozen encoder and prepared images into predictions for every test row.
Predictions are kept; every figure, interval, subgroup and paired comparison is computed from them afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.protocols import Cell, EvaluationProtocol
from cmcgns.metrics.measure import Array, Measures
from cmcgns.metrics.ranking import IntArray
from cmcgns.settings.config import Settings


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

    @property
    def settings(self) -> Settings:
        """The task's own part of it."""
        return self.protocol.task_settings

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
