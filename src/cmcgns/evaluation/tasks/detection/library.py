"""The same mean average precision by torchmetrics (COCO's matching, faster-coco-eval).

Intervals need two thousand weighted resamples, which the library does not know; the figure of the whole test set it
does, so every cell is checked against it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from cmcgns.common.errors import UserError
from cmcgns.metrics.detection import RECALLS
from cmcgns.metrics.measure import Array

TOLERANCE = 1e-5


def check_installed() -> None:
    """Raise if what detection is checked with is missing.

    Raises:
        UserError: torchmetrics or faster-coco-eval is not installed.
    """
    try:
        import faster_coco_eval  # noqa: F401
        import torchmetrics.detection  # noqa: F401
    except ImportError as error:
        raise UserError(f"detection needs {error.name}: pip install 'cmcgns[evaluate]'") from error


def library_map(arrays: Mapping[str, Array], images: int) -> float:
    """Mean average precision of a cell's detections, images that do not count left out; -1 where it is undefined.

    Args:
        arrays: of :func:`cmcgns.evaluation.tasks.detection.cell.judged`.
        images: n of the test set.

    Raises:
        UserError: torchmetrics or faster-coco-eval is not installed.
    """
    check_installed()
    from torchmetrics.detection import MeanAveragePrecision

    found = np.bincount(arrays["image"], minlength=images)
    marked = np.bincount(arrays["truth_image"], minlength=images)
    metric = MeanAveragePrecision(
        iou_thresholds=[float(iou) for iou in arrays["ious"]],
        rec_thresholds=RECALLS.tolist(),
        max_detection_thresholds=[1, 10, int(arrays["max_detections"])],
        backend="faster_coco_eval",
    )
    metric.warn_on_many_detections = False
    counted = np.ones(images, dtype=bool) if not arrays["skip_empty"] else (found > 0) & (marked > 0)
    if not counted.any():
        return -1.0
    order, place = np.argsort(arrays["image"], kind="stable"), np.concatenate([[0], np.cumsum(found)])
    truth_order = np.argsort(arrays["truth_image"], kind="stable")
    truth_place = np.concatenate([[0], np.cumsum(marked)])
    for image in np.flatnonzero(counted):
        rows = order[place[image] : place[image + 1]]
        truths = truth_order[truth_place[image] : truth_place[image + 1]]
        metric.update(
            [{"scores": torch.from_numpy(arrays["scores"][rows]), **_boxes(arrays["boxes"][rows])}],
            [_boxes(arrays["truth_boxes"][truths])],
        )
    return float(metric.compute()["map"])


def check_against_library(ours: float, arrays: Mapping[str, Array], images: int) -> float:
    """The library's figure.

    Raises:
        RuntimeError: it is not ours.
    """
    theirs = library_map(arrays, images)
    if theirs >= 0 and not abs(ours - theirs) <= TOLERANCE:  # -1: no box at all
        raise RuntimeError(f"mean average precision is {ours:.6f}, but {theirs:.6f} by torchmetrics")
    return theirs


def _boxes(corners: Array) -> dict[str, torch.Tensor]:
    labels = torch.zeros(len(corners), dtype=torch.long)
    return {"boxes": torch.from_numpy(np.asarray(corners, dtype=np.float32)).reshape(-1, 4), "labels": labels}
