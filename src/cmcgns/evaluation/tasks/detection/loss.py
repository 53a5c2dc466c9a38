"""Loss of the YOLOv3 head (Redmon and Farhadi, YOLOv3: An Incremental Improvement, 2018, sections 2.1 and 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from cmcgns.evaluation.tasks.detection.anchors import AnchorGrid, assign
from cmcgns.evaluation.tasks.detection.boxes import box_iou

_IGNORED_ABOVE = 0.5


def detection_loss(raw: Tensor, boxes: Tensor, there: Tensor, grid: AnchorGrid) -> Tensor:
    """Box and objectness loss, the mean over images of the sum over outputs.

    An output that answers for a box learns its place and size, small boxes weighing up to twice as much as large
    ones, and objectness 1. All others learn objectness 0, save those that overlap a box by more than 0.5.

    Args:
        raw: (B, N, 5) outputs: x, y, width, height, objectness.
        boxes: (B, K, 4) x0, y0, x1, y1 in pixels, within the image.
        there: (B, K) whether there is a box.
        grid: of the outputs.

    Returns:
        Scalar.
    """
    target = assign(boxes, there, grid)
    answering = raw[target.image, target.output]
    weight = (2 - target.area)[:, None]
    place = functional.binary_cross_entropy_with_logits(answering[:, :2], target.offset, weight, reduction="sum")
    size = (weight * (answering[:, 2:4] - target.log_size) ** 2).sum() / 2
    with torch.no_grad():
        overlap = box_iou(grid.decode(raw.detach().float()), boxes)  # places without a box have no area, so 0
        counts = (overlap.amax(2) <= _IGNORED_ABOVE).float()
        truth = torch.zeros_like(counts)
        counts[target.image, target.output] = 1
        truth[target.image, target.output] = 1
    objectness = functional.binary_cross_entropy_with_logits(raw[..., 4], truth, counts, reduction="sum")
    return (place + size + objectness) / len(raw)
