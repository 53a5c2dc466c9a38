"""Which output answers for which box: the one whose anchor has the most similar shape, in the cell of the centre.

Redmon and Farhadi, YOLOv3: An Incremental Improvement, 2018, section 2.1: one anchor for every box.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cmcgns.evaluation.detection.anchors import PER_LEVEL, AnchorGrid


@dataclass(frozen=True)
class Targets:
    """What P outputs should be.

    Attributes:
        image: (P,) number in the batch.
        output: (P,) number among the N outputs of the image; no pair of `image` and `output` comes twice.
        offset: (P, 2) centre within its cell, in [0, 1].
        log_size: (P, 2) logarithm of width and height over the anchor's.
        area: (P,) share of the image that the box takes.
    """

    image: Tensor
    output: Tensor
    offset: Tensor
    log_size: Tensor
    area: Tensor


def assign(boxes: Tensor, there: Tensor, grid: AnchorGrid) -> Targets:
    """Targets of a batch.

    Of boxes that fall to the same output the first of the image is learnt; the others still keep outputs that
    find them from being called wrong (`detection_loss`).

    Args:
        boxes: (B, K, 4) x0, y0, x1, y1 in pixels, within the image; not changed.
        there: (B, K) whether there is a box.
        grid: of the outputs.
    """
    image = there.nonzero()[:, 0]
    box = boxes[there]
    centre, size = (box[:, :2] + box[:, 2:]) / 2, box[:, 2:] - box[:, :2]
    prior = _shape_iou(size, grid.priors).argmax(1)
    level = prior // PER_LEVEL
    shape = grid.grid[level]
    place = torch.minimum((centre * shape / grid.size).long(), shape - 1)  # a centre on the far border is in the last
    output = grid.first[level] + (place[:, 1] * shape[:, 0] + place[:, 0]) * PER_LEVEL + prior % PER_LEVEL
    kept = _first_of_equals(image * len(grid.place) + output)
    image, output, centre, size, place = (each[kept] for each in (image, output, centre, size, place))
    offset = (centre / grid.cell[output] - place).clamp(0, 1)
    return Targets(image, output, offset, (size / grid.anchor[output]).log(), size.prod(1) / grid.size**2)


def _shape_iou(sizes: Tensor, priors: Tensor) -> Tensor:
    """Intersection over union of boxes with one centre. (P, 2), (A, 2) -> (P, A)."""
    both = torch.minimum(sizes[:, None], priors).prod(-1)
    return both / (sizes.prod(-1)[:, None] + priors.prod(-1) - both)


def _first_of_equals(keys: Tensor) -> Tensor:
    """Positions of the first of each value, rising."""
    ordered, order = keys.sort(stable=True)
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return order[first].sort().values
