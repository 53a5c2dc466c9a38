"""Images of a prepared dataset with labels, boxes and masks: what the protocols read.

Hashes of images and masks as they enter a result are remembered as long as the files are the same ones. A hundred
thousand images of 256 pixels are 7 GB, which takes half a minute to read and hash: too long for a second call that
has nothing to do, and for each of several protocols on the same data.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from cmcgns.common.array_cache import cache_folder
from cmcgns.common.errors import UserError
from cmcgns.common.files import file_stamp, sha256, write_bytes
from cmcgns.data.boxes import placed_boxes
from cmcgns.data.images.masks import read_mask
from cmcgns.data.images.place import Pixels, fit_in_square, have_one_shape
from cmcgns.data.images.read import load_images
from cmcgns.data.manifest import LABEL
from cmcgns.data.pairs.rows import choose_text
from cmcgns.data.paths import image_file
from cmcgns.data.reports.text import split_sentences
from cmcgns.metrics.ranking import BoolArray, FloatArray, IntArray
from cmcgns.settings.config import TextKind

UNCERTAIN = -1
_BLOCK = 1024  # images hashed at once


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
            UserError: rows that were not annotated at all, or whose boxes are malformed; names the first.
        """
        return [corners for _, _, corners in self.placed(np.arange(len(self)), crop)]

    def placed(
        self, rows: IntArray, crop: int | None = None
    ) -> Iterator[tuple[int, list[dict[str, Any]], FloatArray]]:
        """Some rows (b,), each with its k boxes as they are stated and as :meth:`boxes` places them."""
        columns, names = self.frame[["boxes", "width", "height"]].iloc[rows], self.names[rows]
        for row, name, cells in zip(rows.tolist(), names, columns.itertuples(index=False), strict=True):
            text, width, height = cells
            if not text:
                raise UserError(f"{name}: has no annotation of boxes (an empty list would be [])")
            yield row, *placed_boxes(text, width, height, str(name), self.pixels.shape[1], crop, inside=True)

    def masks(self, rows: IntArray | None = None) -> BoolArray:
        """(b, S, S) true inside, of some rows (b,) or all; images without a mask have an empty one.

        Raises:
            UserError: a mask that cannot be read; names the file.
        """
        side, paths = self.pixels.shape[1], self.frame["mask_path"].to_numpy()
        chosen = np.arange(len(paths)) if rows is None else rows
        masks = np.zeros((len(chosen), side, side), dtype=bool)
        for mask, row in zip(masks, chosen, strict=True):
            if paths[row]:
                mask[:] = fit_in_square(self._read_mask(row) * np.uint8(255), side, Image.Resampling.BOX) >= 128
        return masks

    def whole_mask(self, row: int) -> BoolArray:
        """(h, w) true inside, at the size of the mask's file; without one an empty mask of the stored picture's size.

        Raises:
            UserError: a mask that cannot be read; names the file.
        """
        if not self.frame["mask_path"].iloc[row]:
            return np.zeros(self.stored_size(row) or self.pixels.shape[1:], dtype=bool)
        return self._read_mask(row)

    def stored_size(self, row: int) -> tuple[int, int] | None:
        """Height and width of the stored picture; None where the manifest does not say."""
        size = [self.frame[name].iloc[row] for name in ("height", "width")]
        return None if any(pd.isna(side) or side < 1 for side in size) else (int(size[0]), int(size[1]))

    def _read_mask(self, row: int) -> BoolArray:
        """A mask file (h, w), which must have the shape of its image: both are placed alike."""
        path = Path(image_file(self.folder, self.frame["mask_path"].iloc[row]))
        mask = read_mask(path)
        stored = self.stored_size(row) or mask.shape
        if not have_one_shape(mask.shape, stored, self.pixels.shape[1]):
            raise UserError(
                f"{path}: the mask has {mask.shape[1]}×{mask.shape[0]} pixels, its image {stored[1]}×{stored[0]}: "
                "they must have one shape"
            )
        return mask

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
    labels = labels_of(frame, label_names, uncertain, empty_is_negative)
    return ImageSet(frame, folder, pixels, label_names, labels, frame["patient_id"].to_numpy(dtype=object))


def labels_of(
    frame: pd.DataFrame, label_names: list[str], uncertain: Mapping[str, float], empty_is_negative: bool
) -> FloatArray:
    """Labels (n, C) 1, 0 or NaN of given rows; arguments as of :func:`image_set_of`."""
    columns = [LABEL + name for name in label_names]
    stated = frame[columns].astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan)
    meaning = np.array([uncertain.get(name, np.nan) for name in label_names])
    labels = np.where(stated == UNCERTAIN, meaning, stated)
    return np.where(np.isnan(stated), 0.0, labels) if empty_is_negative else labels


def pixels_sha256(images: ImageSet) -> str:
    """Hash of all pixels; remembered by name, size and time of the file that they are mapped from."""

    def compute() -> str:
        digest = hashlib.sha256(f"{images.pixels.shape}".encode())
        for start in range(0, len(images), _BLOCK):
            digest.update(images.pixels[start : start + _BLOCK].tobytes())
        return digest.hexdigest()

    file = getattr(images.pixels, "filename", None)
    stamp = file_stamp(file) if file else ()
    return _remembered([f"{file} {stamp}"], compute) if stamp else compute()


def masks_sha256(images: ImageSet) -> str:
    """Hash of all mask files, by their content; remembered by their names, sizes and times."""
    files = [Path(image_file(images.folder, path)) if path else None for path in images.frame["mask_path"]]

    def compute() -> str:
        digest = hashlib.sha256()
        for file in files:
            digest.update(sha256(file).encode() if file and file.is_file() else b"none")
        return digest.hexdigest()

    return _remembered((f"{file} {file_stamp(file) if file else ()}" for file in files), compute)


def _remembered(stamps: Iterable[str], compute: Callable[[], str]) -> str:
    key = hashlib.sha256("\n".join(stamps).encode()).hexdigest()
    file = cache_folder() / "evaluation" / "content" / key[:2] / key
    try:
        found = file.read_text("ascii")
    except (OSError, ValueError):
        found = ""
    if not re.fullmatch("[0-9a-f]{64}", found):
        found = compute()
        write_bytes(file, found.encode(), durable=False)
    return found
