"""Anchors: which box each output of the head starts from, and which output answers for which box.

The nine anchors are those that YOLOv3 found on COCO for images of 416 px (Redmon and Farhadi, YOLOv3: An Incremental
Improvement, 2018, section 2.3), three for each of three levels, scaled to the image size at hand.

Redmon and Farhadi, YOLOv3: An Incremental Improvement, 2018, section 2.1: one anchor for every box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

ANCHORS = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)
"""Width and height, finest level first."""
ANCHORS_SIZE = 416
PER_LEVEL = 3


@dataclass(frozen=True)
class AnchorGrid:
    """Every output of the head: N = sum over levels of rows · columns · anchors, in that order, finest level first.

    Attributes:
        place: (N, 2) column and row of the cell.
        cell: (N, 2) width and height of a cell in pixels.
        anchor: (N, 2) width and height of the anchor in pixels.
        priors: (L·A, 2) the anchors, finest level first.
        first: (L,) where each level begins in N.
        grid: (L, 2) columns and rows of each level.
        size: side of the image in pixels.
    """

    place: Tensor
    cell: Tensor
    anchor: Tensor
    priors: Tensor
    first: Tensor
    grid: Tensor
    size: int

    def to(self, device: torch.device | str) -> AnchorGrid:
        """On another device."""
        names = ("place", "cell", "anchor", "priors", "first", "grid")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def decode(self, raw: Tensor) -> Tensor:
        """Boxes of outputs (equations of section 2.1): (B, N, 5) -> (B, N, 4) x0, y0, x1, y1 in pixels."""
        centre = (raw[..., :2].sigmoid() + self.place) * self.cell
        half = self.anchor * raw[..., 2:4].clamp(max=_LARGEST).exp() / 2
        return torch.cat((centre - half, centre + half), -1)


_LARGEST = 6.0  # exp(6) = 400 anchors: larger than any image, and no overflow


def anchor_grid(grids: Sequence[tuple[int, int]], size: int) -> AnchorGrid:
    """Anchors of three maps.

    Args:
        grids: rows and columns of each, finest first.
        size: side of the image in pixels.
    """
    levels = [_level(rows, columns, level, size) for level, (rows, columns) in enumerate(grids)]
    place, cell, anchor = (torch.cat(parts) for parts in zip(*levels, strict=True))
    sizes = torch.tensor([len(level[0]) for level in levels])
    grid = torch.tensor([(columns, rows) for rows, columns in grids])
    return AnchorGrid(place, cell, anchor, _priors(size).flatten(0, 1), sizes.cumsum(0) - sizes, grid, size)


def _priors(size: int) -> Tensor:
    return torch.tensor(ANCHORS, dtype=torch.float32) * (size / ANCHORS_SIZE)


def _level(rows: int, columns: int, level: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    row, column, anchor = torch.meshgrid(*map(torch.arange, (rows, columns, PER_LEVEL)), indexing="ij")
    place = torch.stack((column, row), -1).flatten(0, 2).float()
    cell = torch.tensor([size / columns, size / rows]).expand(len(place), 2)
    return place, cell, _priors(size)[level][anchor.flatten()]


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
