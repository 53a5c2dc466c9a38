"""From detections and marked boxes, as a cell keeps them, to figures."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from cmcgns.evaluation.contract import Array
from cmcgns.evaluation.detection.average_precision import Figures, RankedDetections
from cmcgns.evaluation.detection.boxes import BoxList
from cmcgns.evaluation.detection.matching import match
from cmcgns.evaluation.detection.settings import DetectionSettings


def judged(found: Mapping[str, Array], truth: BoxList, settings: DetectionSettings) -> dict[str, Array]:
    """Detections together with the truth and with how they are to be judged: what a cell keeps."""
    return {
        **found,
        "truth_image": truth.image,
        "truth_boxes": truth.corners,
        "ious": np.array(settings.ious),
        "skip_empty": np.array(settings.skip_empty),
        "max_detections": np.array(settings.max_detections),
    }


class Judged:
    """Matched detections of n images.

    Args:
        arrays: of :func:`judged`.
        images: n.

    Attributes:
        ious: the thresholds.
    """

    def __init__(self, arrays: Mapping[str, Array], images: int) -> None:
        image, truth_image = arrays["image"], arrays["truth_image"]
        self.ious = [float(value) for value in arrays["ious"]]
        hits = match(image, arrays["boxes"], truth_image, arrays["truth_boxes"], self.ious)
        truths = np.bincount(truth_image, minlength=images)
        self._ranked = RankedDetections(image, arrays["scores"], hits, truths)
        filled = (truths > 0) & (np.bincount(image, minlength=images) > 0)
        self._counted = np.where(filled | ~arrays["skip_empty"], 1.0, 0.0)

    def figures(self, counts: npt.NDArray[np.generic]) -> Figures:
        """Figures of resamples from how often (R, n) each image was drawn."""
        return self._ranked.figures(counts.astype(np.float64) * self._counted)

    def place(self, iou: float) -> int | None:
        """Position of a threshold, if it is one."""
        near = np.flatnonzero(np.isclose(self.ious, iou))
        return int(near[0]) if len(near) else None
