"""Where findings are: filled boxes or masks, by label or all together, as the encoder sees them or at their size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch.nn import functional

from cmcgns.common.errors import UserError
from cmcgns.data.boxes import parse_boxes, picture_size
from cmcgns.data.images.place import centre_crop, place_boxes
from cmcgns.evaluation.image_set import ImageSet
from cmcgns.evaluation.task_settings.base import Target
from cmcgns.metrics.ranking import BoolArray, FloatArray, IntArray
from cmcgns.objectives.phrase_maps import grid_side

_ROUNDING = 1e-6  # of a mean in single precision
_INSIDE = 0.5 - _ROUNDING  # half of a patch
_CHUNK = 256  # masks or boxes drawn at once


@dataclass(frozen=True)
class Regions:
    """Regions of findings in the images of a split, as the encoder sees them.

    Attributes:
        images: the split.
        findings: K names.
        kind: boxes are filled, those of one label together; masks are of the only finding.
        size: s, side of the crop that the encoder sees.
        finding_share: a patch with this share of a finding's region is positive too; None: only half full ones are.
        rows: images that were annotated: all, where masks are (no mask: nothing is there), or those with a list of
            boxes, which may be empty.
    """

    images: ImageSet
    findings: tuple[str, ...]
    kind: Target
    size: int
    finding_share: float | None = None

    @cached_property
    def rows(self) -> IntArray:
        """(n,) numbers of the annotated images."""
        if self.kind == "masks":
            return np.arange(len(self.images))
        return np.flatnonzero(self.images.frame["boxes"].to_numpy() != "")

    @cached_property
    def _boxes(self) -> dict[int, dict[str, FloatArray]]:
        """Corners (k, 4) in the crop, by image and label."""
        found = {}
        for row, boxes, corners in self.images.placed(self.rows, self.size):
            labels = np.array([str(box.get("label", "")) for box in boxes], dtype=object)
            found[row] = {label: corners[labels == label] for label in set(labels)}
        return found

    @cached_property
    def stated(self) -> BoolArray:
        """(n, K) whether an annotated image has a region of a finding, be it outside of the crop."""
        if self.kind == "masks":
            return np.asarray(self.images.frame["mask_path"].to_numpy() != "")[:, None]
        return np.array([[name in self._boxes[row] for name in self.findings] for row in self.rows.tolist()])

    def masks(self, rows: IntArray) -> BoolArray:
        """(b, K, s, s) true inside, of some annotated images (b,).

        Raises:
            UserError: malformed boxes, or a mask that cannot be read; names the row or the file.
        """
        if self.kind == "masks":
            return centre_crop(self.images.masks(rows), self.size)[:, None]
        none = np.zeros((0, 4))
        each = [self._boxes[row].get(name, none) for row in rows.tolist() for name in self.findings]
        return fill_boxes(each, self.size, self.size).reshape(len(rows), len(self.findings), self.size, self.size)

    def patch_labels(self, rows: IntArray, patches: int) -> FloatArray:
        """(b, P, K) 1 where half of a patch or more lies in the region of a finding, or enough of the region, else 0.

        NaN for all patches of an image that has the label but no region of it: nobody said where.

        Args:
            rows: (b,) annotated images.
            patches: P, of a square grid.
        """
        masks = torch.from_numpy(self.masks(rows)).float()
        share = functional.adaptive_avg_pool2d(masks, grid_side(patches)).flatten(2)
        inside = share >= _INSIDE
        if self.finding_share is not None:
            enough = self.finding_share * share.sum(-1, keepdim=True)
            inside |= (share >= enough - _ROUNDING) & (share > _ROUNDING)
        labels = inside.numpy().astype(np.float64).transpose(0, 2, 1)
        for k, name in enumerate(self.findings):
            if name in self.images.label_names:
                has = self.images.labels[rows, self.images.label_names.index(name)] == 1
                labels[has & ~self.stated[np.searchsorted(self.rows, rows), k], :, k] = np.nan
        return labels


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
    kept, places, whole = [np.zeros((0, size, size), dtype=bool)], [np.zeros(0, dtype=np.intp)], 0
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]
        full = fill_boxes([boxes[row] for row in part], side, side) if kind == "boxes" else images.masks(part)
        masks = centre_crop(full, size)
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
