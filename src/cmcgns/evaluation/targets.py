"""What is to be drawn on images: masks, or boxes that are filled, as the encoder sees them and at their own size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from cmcgns.common.errors import UserError
from cmcgns.data.boxes import parse_boxes, picture_size
from cmcgns.data.images.place import place_boxes
from cmcgns.evaluation.image_set import ImageSet
from cmcgns.metrics.ranking import BoolArray, FloatArray, IntArray

Target = Literal["masks", "boxes"]
_CHUNK = 256  # masks or boxes drawn at once


@dataclass(frozen=True)
class Targets:
    """Masks of one split, of which only those that are not empty take memory.

    Attributes:
        masks: (p, s, s) masks with at least one pixel inside.
        place: (n,) where an image's mask is in `masks`; -1: it is empty.
        outside: share of all pixels inside that the crop to s cut off.
    """

    masks: BoolArray
    place: IntArray
    outside: float

    @property
    def positive(self) -> BoolArray:
        """(n,) whether anything is to be drawn."""
        return np.asarray(self.place >= 0)

    def of(self, rows: IntArray) -> BoolArray:
        """(b,) rows -> (b, s, s) masks."""
        found = np.zeros((len(rows), *self.masks.shape[1:]), dtype=bool)
        place = self.place[rows]
        found[place >= 0] = self.masks[place[place >= 0]]
        return found


def read_targets(images: ImageSet, kind: Target, size: int) -> Targets:
    """Masks of all images of a split, cropped as the encoder's input is.

    Args:
        images: n images in squares of side S.
        kind: `masks` reads the mask files; `boxes` fills the boxes.
        size: s <= S, side of the central crop.

    Raises:
        UserError: a mask that cannot be read, or an image that was not annotated with boxes; names it.
    """
    side = images.pixels.shape[1]
    if kind == "boxes":
        boxes = images.boxes()
        rows = np.flatnonzero([len(each) > 0 for each in boxes])
    else:
        rows = np.flatnonzero(images.frame["mask_path"].to_numpy() != "")
    first = (side - size) // 2
    inside = slice(first, first + size)
    kept, places, whole = [np.zeros((0, size, size), dtype=bool)], [np.zeros(0, dtype=np.intp)], 0
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]
        full = fill_boxes([boxes[row] for row in part], side, side) if kind == "boxes" else images.masks(part)
        masks = full[:, inside, inside]
        some = masks.any(axis=(1, 2))
        whole += int(full.sum())
        kept.append(masks[some])
        places.append(part[some])
    masks, found = np.concatenate(kept), np.concatenate(places)
    place = np.full(len(images), -1, dtype=np.intp)
    place[found] = np.arange(len(found))
    return Targets(masks, place, 1 - int(masks.sum()) / whole if whole else 0.0)


def fill_boxes(boxes: list[FloatArray], height: int, width: int) -> BoolArray:
    """Masks of filled boxes: a pixel is inside when one of the image's boxes covers at least half of its area.

    Args:
        boxes: of n images, (k, 4) x0, y0, x1, y1 in pixels; parts beyond the image are ignored.
        height: of each image.
        width: of each image.

    Returns:
        (n, height, width).

    Raises:
        UserError: a box with a corner that is no finite number.
    """
    masks = np.zeros((len(boxes), height, width), dtype=bool)
    for mask, corners in zip(masks, boxes, strict=True):
        if not np.isfinite(corners).all():
            raise UserError(f"box {corners[~np.isfinite(corners).all(axis=1)][0].tolist()} is not finite")
        left, top, right, bottom = corners.T
        across, down = _covered(left, right, width), _covered(top, bottom, height)
        mask[:] = (down[:, :, None] * across[:, None, :] >= 0.5 - 1e-9).any(axis=0)
    return masks


def _covered(low: FloatArray, high: FloatArray, side: int) -> FloatArray:
    """Share of every pixel along one axis that lies between two coordinates. (K,), (K,) -> (K, side)."""
    edge = np.arange(side)
    return np.asarray(np.clip(np.minimum(high[:, None], edge + 1) - np.maximum(low[:, None], edge), 0, 1))


def whole_target(images: ImageSet, row: int, kind: Target) -> BoolArray:
    """What is to be drawn on an image, (h, w), at the size of its mask or, for boxes, of the stored picture.

    Raises:
        UserError: as :func:`read_targets`.
    """
    if kind == "masks":
        return images.whole_mask(row)
    about = images.frame.iloc[row]
    name = str(about["source"] or about["image_path"])
    boxes = parse_boxes(about["boxes"], name)
    if not boxes:
        return np.zeros(images.stored_size(row) or images.pixels.shape[1:], dtype=bool)
    width, height = picture_size(about["width"], about["height"], name)
    corners = place_boxes(boxes, width, height, max(width, height))
    left, top = (max(width, height) - width) // 2, (max(width, height) - height) // 2
    return np.asarray(fill_boxes([corners - [left, top, left, top]], height, width)[0])
