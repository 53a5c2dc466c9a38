"""Boxes of images, and anchors: which box each output of the head starts from, and which box it answers for.

The nine anchors are those that YOLOv3 found on COCO for images of 416 px (Redmon and Farhadi, YOLOv3: An Incremental
Improvement, 2018, section 2.3), three for each of three levels, scaled to the image size at hand. One anchor answers
for every box (section 2.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cmcgns.evaluation.image_set import ImageSet
from cmcgns.metrics.ranking import BoolArray, FloatArray, IntArray

ANCHORS = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)
"""Width and height, finest level first."""
ANCHORS_SIZE = 416
PER_LEVEL = 3
_LARGEST = 6.0  # exp(6) = 400 anchors: larger than any image, and no overflow
_SMALLEST = 1.0  # pixel: what a crop leaves of a box must have this side to be learnt


@dataclass(frozen=True)
class BoxList:
    """Boxes of n images in one array, in pixels of the encoder's input; nothing is ever changed in place.

    Attributes:
        images: n.
        image: (m,) which image each box is on, rising.
        corners: (m, 4) x0, y0, x1, y1.
    """

    images: int
    image: IntArray
    corners: FloatArray

    @property
    def counts(self) -> IntArray:
        """(n,) boxes of each image."""
        return np.bincount(self.image, minlength=self.images)

    @property
    def has_box(self) -> BoolArray:
        """(n,) whether there is any."""
        return self.counts > 0

    def padded(self, rows: IntArray) -> tuple[Tensor, Tensor]:
        """Boxes of some images: (B, K, 4) float32 and (B, K) which are there; K is the most that one has, or 1."""
        counts = self.counts
        first = np.cumsum(counts) - counts
        places = np.arange(max(1, int(counts[rows].max(initial=0))))
        there = places < counts[rows][:, None]
        number = np.where(there, first[rows][:, None] + places, 0)
        corners = self.corners[number] if len(self.corners) else np.zeros((*number.shape, 4))
        corners = np.where(there[..., None], corners, 0)
        return torch.from_numpy(corners.astype(np.float32)), torch.from_numpy(there)

    def cut(self, size: int) -> BoxList:
        """What lies within (0, 0, size, size); boxes that keep less than a pixel's breadth are not among it."""
        corners = self.corners.clip(0, size)
        left = (corners[:, 2:] - corners[:, :2] >= _SMALLEST).all(axis=1)
        return BoxList(self.images, self.image[left], corners[left])

    def beyond(self, size: int) -> int:
        """How many boxes reach more than a pixel out of (0, 0, size, size)."""
        return int(((self.corners < -_SMALLEST) | (self.corners > size + _SMALLEST)).any(axis=1).sum())


def read_boxes(images: ImageSet, size: int) -> BoxList:
    """The boxes of a split, where they are after the centre crop from the stored squares to `size`.

    Boxes that the crop cuts keep their whole extent: see `BoxList.cut`.

    Raises:
        UserError: rows that were not annotated; names the first.
    """
    each = images.boxes(size)
    corners = np.concatenate([np.zeros((0, 4)), *each])
    image = np.repeat(np.arange(len(each)), [len(boxes) for boxes in each])
    return BoxList(len(each), image, corners)


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

    def decode(self, raw: Tensor) -> Tensor:
        """Boxes of outputs (equations of section 2.1): (B, N, 5) -> (B, N, 4) x0, y0, x1, y1 in pixels."""
        centre = (raw[..., :2].sigmoid() + self.place) * self.cell
        half = self.anchor * raw[..., 2:4].clamp(max=_LARGEST).exp() / 2
        return torch.cat((centre - half, centre + half), -1)


def anchor_grid(grids: Sequence[tuple[int, int]], size: int) -> AnchorGrid:
    """Anchors of three maps.

    Args:
        grids: rows and columns of each, finest first.
        size: side of the image in pixels.
    """
    priors = torch.tensor(ANCHORS, dtype=torch.float32) * (size / ANCHORS_SIZE)
    places, cells, anchors = [], [], []
    for prior, (rows, columns) in zip(priors, grids, strict=True):
        row, column, anchor = torch.meshgrid(*map(torch.arange, (rows, columns, PER_LEVEL)), indexing="ij")
        places.append(torch.stack((column, row), -1).flatten(0, 2).float())
        cells.append(torch.tensor([size / columns, size / rows]).expand(anchor.numel(), 2))
        anchors.append(prior[anchor.flatten()])
    sizes = torch.tensor([len(place) for place in places])
    grid = torch.tensor([(columns, rows) for rows, columns in grids])
    place, cell, anchor = torch.cat(places), torch.cat(cells), torch.cat(anchors)
    return AnchorGrid(place, cell, anchor, priors.flatten(0, 1), sizes.cumsum(0) - sizes, grid, size)


@dataclass(frozen=True)
class AnchorTargets:
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


def assign(boxes: Tensor, there: Tensor, grid: AnchorGrid) -> AnchorTargets:
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
    first = np.unique((image * len(grid.place) + output).cpu().numpy(), return_index=True)[1]
    kept = torch.from_numpy(np.sort(first)).to(image.device)
    image, output, centre, size, place = (each[kept] for each in (image, output, centre, size, place))
    offset = (centre / grid.cell[output] - place).clamp(0, 1)
    return AnchorTargets(image, output, offset, (size / grid.anchor[output]).log(), size.prod(1) / grid.size**2)


def _shape_iou(sizes: Tensor, priors: Tensor) -> Tensor:
    """Intersection over union of boxes with one centre. (P, 2), (A, 2) -> (P, A)."""
    both = torch.minimum(sizes[:, None], priors).prod(-1)
    return both / (sizes.prod(-1)[:, None] + priors.prod(-1) - both)
