"""Detection: a YOLOv3 head on the encoder's frozen maps; mean average precision with COCO's matching."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from cmcgns.evaluation.contract import Job, Predictions
from cmcgns.evaluation.data import PARTS, TaskData
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.protocols import Cell
from cmcgns.evaluation.protocols.task_settings import DetectionSettings
from cmcgns.evaluation.tasks.detection.cell import _FREE_RESPONSE, _NAMED, Judged, read_split, run_cell
from cmcgns.evaluation.tasks.detection.library import check_installed
from cmcgns.metrics.measure import Measure, Measures
from cmcgns.metrics.ranking import FloatArray
from cmcgns.settings.config import Settings


class DetectionTask:
    """A detector for every fraction and seed."""

    settings: ClassVar[type[Settings]] = DetectionSettings
    learns: ClassVar[bool] = True

    def lacks(self, data: TaskData, encoder: FrozenEncoder) -> str:  # noqa: ARG002
        """Boxes are needed to train and to test."""
        stated = data.frame["boxes"].astype(str)
        if not stated.str.strip().any():
            return "no boxes are annotated"
        for part in ("train", "test"):
            if not stated[data.frame["part"] == part].str.contains("{", regex=False).any():
                return f"no image of {part} has a box"
        return ""

    def run(self, job: Job) -> Iterator[tuple[Cell, Predictions]]:
        """Predictions of every cell, each as soon as it is done."""
        settings = job.settings
        assert isinstance(settings, DetectionSettings)
        check_installed()  # before hours of training
        splits = {part: read_split(job, settings, part) for part in PARTS}
        for cell in job.cells:
            yield cell, run_cell(job, settings, cell, splits)

    def measures(self, predictions: Predictions) -> Measures:
        """Mean average precision, its value at some overlaps, recall, and sensitivity.

        `map` is the mean over the overlaps of the average precision; `recall@100` the mean over the overlaps of the
        share of boxes found by any of an image's detections; `sensitivity@1fp` the share found, with an overlap of at
        least 0.5, at the score that lets one false alarm an image through.
        """
        arrays = predictions.arrays
        ranked = Judged(arrays, len(predictions.rows))
        named = {name: place for value, name in _NAMED.items() if (place := ranked.place(value)) is not None}
        free_response = ranked.place(_FREE_RESPONSE)
        of = ["map", *named, f"recall@{int(arrays['max_detections'])}"]
        of += [] if free_response is None else ["sensitivity@1fp"]

        def compute(counts: npt.NDArray[np.generic]) -> FloatArray:
            figures = ranked.figures(counts)
            columns = [figures.precision.mean(1), *(figures.precision[:, place] for place in named.values())]
            columns.append(figures.recall.mean(1))
            if free_response is not None:
                columns.append(figures.sensitivity[:, free_response])
            return np.stack(columns, axis=1)

        return Measures(tuple(Measure(name) for name in of), compute)


TASK = DetectionTask()
