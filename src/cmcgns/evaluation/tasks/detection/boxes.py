"""Boxes of many images in one array: no fixed maximum an image, and nothing is ever changed in place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cmcgns.evaluation.image_set import ImageSet
from cmcgns.metrics.ranking import BoolArray, FloatArray, IntArray

_SMALLEST = 1.0  # pixel: what a crop leaves of a box must have this side to be learnt


@dataclass(frozen=True)
class BoxList:
    """Boxes of n images, in pixels of the encoder's input.

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


def box_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union. (…, N, 4) and (…, K, 4) -> (…, N, K); 0 where both are empty."""
    low = torch.maximum(first[..., :, None, :2], second[..., None, :, :2])
    high = torch.minimum(first[..., :, None, 2:], second[..., None, :, 2:])
    both = (high - low).clamp(min=0).prod(-1)
    area, other = ((boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1) for boxes in (first, second))
    either = area[..., :, None] + other[..., None, :] - both
    return torch.where(either > 0, both / either.clamp(min=torch.finfo(either.dtype).tiny), 0)
