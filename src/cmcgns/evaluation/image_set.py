"""Images of a prepared dataset with labels, boxes and masks: what the protocols read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from cmcgns.common.errors import UserError
from cmcgns.data.images.files import open_picture
from cmcgns.data.images.place import Pixels, fit_in_square, place_boxes
from cmcgns.data.images.read import load_images
from cmcgns.data.manifest import LABEL, image_file
from cmcgns.data.pairs.rows import choose_text
from cmcgns.data.reports.text import split_sentences
from cmcgns.evaluation.protocols.task_settings import TextKind
from cmcgns.metrics.ranking import BoolArray, FloatArray, IntArray

UNCERTAIN = -1
_CHUNK = 256  # masks or boxes drawn at once


@dataclass(frozen=True)
class ImageSet:
    """One split of a prepared dataset.

    Attributes:
        frame: its rows of the manifest.
        folder: of the manifest.
        pixels: (n, S, S) uint8, long side S, centred on a black square; may be memory-mapped.
        label_names: C names.
        labels: (n, C) 1, 0 or NaN.
        patients: (n,) patient ids.
    """

    frame: pd.DataFrame
    folder: Path
    pixels: Pixels
    label_names: list[str]
    labels: FloatArray
    patients: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def names(self) -> NDArray[np.str_]:
        """(n,) what an image is called in predictions: its source file, which is the same for everyone."""
        source = self.frame["source"]
        return source.where(source != "", self.frame["image_path"]).to_numpy(dtype=np.str_)

    def boxes(self, crop: int | None = None) -> list[FloatArray]:
        """For every image (k, 4) boxes x0, y0, x1, y1; (0, 4) where nothing was marked.

        Args:
            crop: in pixels of the crop of this side from the middle; None: of the square.

        Raises:
            UserError: rows that were not annotated at all; names the first.
        """
        columns, placed = self.frame[["boxes", "width", "height", "source"]], []
        for text, width, height, source in columns.itertuples(index=False):
            if not text:
                raise UserError(f"{source}: has no annotation of boxes (an empty list would be [])")
            placed.append(place_boxes(json.loads(text), int(width), int(height), self.pixels.shape[1], crop))
        return placed

    def masks(self, rows: IntArray | None = None) -> BoolArray:
        """(b, S, S) true inside, of some rows (b,) or all; images without a mask have an empty one.

        Raises:
            UserError: a mask that cannot be read; names the file.
        """
        side, paths = self.pixels.shape[1], self.frame["mask_path"].to_numpy()
        paths = paths if rows is None else paths[rows]
        masks = np.zeros((len(paths), side, side), dtype=bool)
        for mask, path in zip(masks, paths, strict=True):
            if path:
                mask[:] = _read_mask(Path(image_file(self.folder, path)), side)
        return masks

    def texts(self, kind: TextKind) -> list[str]:
        """The report of each row by the rule of `data.text`, empty where it holds no sentence."""
        return [text if split_sentences(text) else "" for text in choose_text(self.frame, kind).tolist()]


def image_set_of(
    frame: pd.DataFrame,
    folder: Path,
    size: int,
    label_names: list[str],
    uncertain: Mapping[str, float],
    empty_is_negative: bool = False,
) -> ImageSet:
    """Images and labels of given rows.

    Args:
        frame: rows of a manifest.
        folder: of the manifest.
        size: S, side of the squares.
        label_names: C labels, in this order.
        uncertain: what -1 means, by label; -1 of other labels becomes NaN (not used).
        empty_is_negative: whether a missing label is 0 instead of NaN.

    Raises:
        UserError: unreadable images; names the first.
    """
    pixels, errors = load_images([image_file(folder, path) for path in frame["image_path"]], size)
    if errors:
        first = next(iter(errors.values()))
        raise UserError(f"{folder}: {len(errors)} images cannot be read, first: {first}; `cmcgns check` names all")
    columns = [LABEL + name for name in label_names]
    stated = frame[columns].astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan)
    meaning = np.array([uncertain.get(name, np.nan) for name in label_names])
    labels = np.where(stated == UNCERTAIN, meaning, stated)
    if empty_is_negative:
        labels = np.where(np.isnan(stated), 0.0, labels)
    return ImageSet(frame, folder, pixels, label_names, labels, frame["patient_id"].to_numpy(dtype=object))


def _read_mask(path: Path, side: int) -> BoolArray:
    """A stored mask placed as its image is, inside where at least half of a pixel is."""
    with open_picture(path) as image:
        gray = np.asarray(image.convert("L"))
    return fit_in_square(gray, side, Image.Resampling.BOX) >= 128


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
        full = fill_boxes([boxes[row] for row in part], side) if kind == "boxes" else images.masks(part)
        masks = full[:, inside, inside]
        some = masks.any(axis=(1, 2))
        whole += int(full.sum())
        kept.append(masks[some])
        places.append(part[some])
    masks, found = np.concatenate(kept), np.concatenate(places)
    place = np.full(len(images), -1, dtype=np.intp)
    place[found] = np.arange(len(found))
    return Targets(masks, place, 1 - int(masks.sum()) / whole if whole else 0.0)


def fill_boxes(boxes: list[FloatArray], side: int) -> BoolArray:
    """Masks of filled boxes: a pixel is inside when one of the image's boxes covers at least half of its area.

    Args:
        boxes: of n images, (k, 4) x0, y0, x1, y1 in pixels; parts beyond the square are ignored.
        side: s of the square.

    Returns:
        (n, s, s).

    Raises:
        UserError: a box with a corner that is no finite number.
    """
    masks = np.zeros((len(boxes), side, side), dtype=bool)
    for mask, corners in zip(masks, boxes, strict=True):
        if not np.isfinite(corners).all():
            raise UserError(f"box {corners[~np.isfinite(corners).all(axis=1)][0].tolist()} is not finite")
        left, top, right, bottom = corners.T
        across, down = _covered(left, right, side), _covered(top, bottom, side)
        mask[:] = (down[:, :, None] * across[:, None, :] >= 0.5 - 1e-9).any(axis=0)
    return masks


def _covered(low: FloatArray, high: FloatArray, side: int) -> FloatArray:
    """Share of every pixel along one axis that lies between two coordinates. (K,), (K,) -> (K, side)."""
    edge = np.arange(side)
    return np.asarray(np.clip(np.minimum(high[:, None], edge + 1) - np.maximum(low[:, None], edge), 0, 1))
