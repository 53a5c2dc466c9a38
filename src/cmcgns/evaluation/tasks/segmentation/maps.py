"""What has to be drawn, and maps of the frozen encoder to draw it from: computed once for every image and kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from cmcgns.common.errors import UserError
from cmcgns.data.images.place import Pixels, centre_crop
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.image_set import ImageSet
from cmcgns.metrics.ranking import BoolArray, FloatArray, IntArray

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


def read_targets(images: ImageSet, kind: Literal["masks", "boxes"], size: int) -> Targets:
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
        full = fill_boxes([boxes[row] for row in part], side) if kind == "boxes" else _read(images, part)
        masks = full[:, inside, inside]
        some = masks.any(axis=(1, 2))
        whole += int(full.sum())
        kept.append(masks[some])
        places.append(part[some])
    masks, found = np.concatenate(kept), np.concatenate(places)
    place = np.full(len(images), -1, dtype=np.intp)
    place[found] = np.arange(len(found))
    return Targets(masks, place, 1 - int(masks.sum()) / whole if whole else 0.0)


def _read(images: ImageSet, rows: IntArray) -> BoolArray:
    frame = images.frame.iloc[rows].reset_index(drop=True)
    return replace(images, frame=frame).masks()  # reads the mask files of its frame, and the side of its pixels


def fill_boxes(boxes: list[npt.NDArray[np.float64]], side: int) -> BoolArray:
    """Masks of filled boxes: a pixel is inside when one of the image's boxes covers at least half of its area.

    Args:
        boxes: of n images, (k, 4) x0, y0, x1, y1 in pixels; parts beyond the square are ignored.
        side: s of the square.

    Returns:
        (n, s, s).

    Raises:
        UserError: a box with a corner that is no finite number.
    """
    corners = np.concatenate([np.zeros((0, 4)), *boxes])
    if not np.isfinite(corners).all():
        raise UserError(f"box {corners[~np.isfinite(corners).all(axis=1)][0].tolist()} is not finite")
    counts = np.array([len(each) for each in boxes], dtype=np.intp)
    image = np.repeat(np.arange(len(boxes)), counts)
    rank = np.arange(len(image)) - np.repeat(np.cumsum(counts) - counts, counts)
    across = _covered(corners[:, 0], corners[:, 2], side)
    down = _covered(corners[:, 1], corners[:, 3], side)
    masks = np.zeros((len(boxes), side, side), dtype=bool)
    for turn in range(int(counts.max(initial=0))):  # the first box of every image, then the second, …
        one = rank == turn
        masks[image[one]] |= down[one][:, :, None] * across[one][:, None, :] >= 0.5 - 1e-9
    return masks


def _covered(low: FloatArray, high: FloatArray, side: int) -> FloatArray:
    """Share of every pixel along one axis that lies between two coordinates. (K,), (K,) -> (K, side)."""
    edge = np.arange(side)
    return np.asarray(np.clip(np.minimum(high[:, None], edge + 1) - np.maximum(low[:, None], edge), 0, 1))


_MIB = 1 << 20


@dataclass(frozen=True)
class Split:
    """One split: its images and what is to be drawn on them."""

    name: str
    images: ImageSet
    targets: Targets


class MapStore:
    """Maps and masks of any rows.

    Images are always encoded `batch_size` at a time (a smaller batch is filled up), so that an image's maps do not
    depend on how many others were asked for.

    Args:
        encoder: the frozen one.
        limit: MiB that kept maps may take on the encoder's device.
        batch_size: images encoded at once.

    Attributes:
        image_bytes: that the maps of one image take, measured.
    """

    def __init__(self, encoder: FrozenEncoder, limit: int, batch_size: int) -> None:
        self.encoder, self.limit, self.batch_size = encoder, limit * _MIB, batch_size
        one = self._encode(np.zeros((1, encoder.image_size, encoder.image_size), dtype=np.uint8))
        self.image_bytes = sum(level.numel() * level.element_size() for level in one)
        self._kept: dict[tuple[str, int], list[Tensor]] = {}

    @property
    def kept(self) -> int:
        """How many images have their maps in memory."""
        return len(self._kept)

    def keep(self, split: Split, rows: IntArray) -> None:
        """Compute the maps of rows that have none yet, until the memory is used up."""
        room = max(0, self.limit // self.image_bytes - self.kept)
        missing = np.array([row for row in rows if (split.name, int(row)) not in self._kept], dtype=np.intp)[:room]
        for start in range(0, len(missing), self.batch_size):
            chosen = missing[start : start + self.batch_size]
            maps = self._encode(np.asarray(split.images.pixels[chosen]))
            for place, row in enumerate(chosen):
                self._kept[split.name, int(row)] = [level[place].clone() for level in maps]

    def read(self, split: Split, rows: IntArray, changes: FloatArray | None = None) -> tuple[list[Tensor], Tensor]:
        """Maps and masks.

        Args:
            split: of the images.
            rows: (b,) row numbers of it, at most `batch_size`.
            changes: (b, 2) angle and scale of each image, see `augment`; such maps are always computed.

        Returns:
            Maps (b, width, h, w), finest first, and masks (b, s, s), on the encoder's device.
        """
        masks = split.targets.of(rows)
        keys = [(split.name, int(row)) for row in rows]
        if changes is None and all(key in self._kept for key in keys):
            levels = zip(*(self._kept[key] for key in keys), strict=True)
            maps = [torch.stack(level) for level in levels]
        else:
            pixels = np.asarray(split.images.pixels[rows])
            if changes is not None:
                pixels, masks = turn_and_scale(centre_crop(pixels, self.encoder.image_size), masks, changes)
            maps = self._encode(pixels)
        maps = [level.contiguous(memory_format=torch.channels_last) for level in maps]
        return maps, torch.from_numpy(masks).to(self.encoder.device)

    def _encode(self, pixels: Pixels) -> list[Tensor]:
        """(b, S, S) -> maps of b images."""
        wanted = len(pixels)
        filled = pixels[np.arange(self.batch_size) % wanted]
        return [level[:wanted] for level in self.encoder.maps(self.encoder.tensors(filled))]


def turn_and_scale(pixels: Pixels, masks: BoolArray, changes: FloatArray) -> tuple[Pixels, BoolArray]:
    """Turn and scale squares about their centres; bilinear, black outside. Unchanged images come back as they are.

    Args:
        pixels: (b, s, s) uint8.
        masks: (b, s, s).
        changes: (b, 2) of :func:`cmcgns.evaluation.tasks.segmentation.train.draw_changes`.

    Returns:
        Both, changed alike; a mask's pixel is inside where at least half of its value is.
    """
    moved = np.flatnonzero((changes != [0.0, 1.0]).any(axis=1))
    if not len(moved):
        return pixels, masks
    angle, scale = torch.from_numpy(changes[moved]).float().unbind(1)
    cosine, sine, zero = angle.cos() / scale, angle.sin() / scale, torch.zeros_like(angle)
    matrix = torch.stack([cosine, -sine, zero, sine, cosine, zero], dim=1).view(-1, 2, 3)
    both = torch.stack([_floats(pixels[moved]), _floats(masks[moved]) * 255], dim=1)
    grid = functional.affine_grid(matrix, list(both.shape), align_corners=False)
    found = functional.grid_sample(both, grid, align_corners=False).numpy()
    pixels, masks = pixels.copy(), masks.copy()
    pixels[moved] = found[:, 0].round().astype(np.uint8)
    masks[moved] = found[:, 1] >= 127.5
    return pixels, masks


def _floats(values: Pixels | BoolArray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).float()
