"""Images of a prepared dataset with labels, boxes and masks: what the protocols read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from cmcgns.common.errors import UserError
from cmcgns.data.images.files import open_picture
from cmcgns.data.images.place import Pixels, fit_in_square, place_boxes
from cmcgns.data.images.read import load_images
from cmcgns.data.manifest import LABEL, image_file

UNCERTAIN = -1


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
    labels: NDArray[np.float64]
    patients: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def names(self) -> NDArray[np.str_]:
        """(n,) what an image is called in predictions: its source file, which is the same for everyone."""
        source = self.frame["source"]
        return source.where(source != "", self.frame["image_path"]).to_numpy(dtype=np.str_)

    def boxes(self, crop: int | None = None) -> list[NDArray[np.float64]]:
        """For every image (k, 4) boxes x0, y0, x1, y1; (0, 4) where nothing was marked.

        Args:
            crop: in pixels of the crop of this side from the middle; None: of the square.

        Raises:
            UserError: rows that were not annotated at all; names the first.
        """
        columns = (self.frame["boxes"], self.frame["width"], self.frame["height"])
        return [
            place_boxes(self._annotated(row, text), int(width), int(height), self.pixels.shape[1], crop)
            for row, (text, width, height) in enumerate(zip(*columns, strict=True))
        ]

    def _annotated(self, row: int, text: str) -> list[dict[str, float]]:
        if not text:
            raise UserError(
                f"{self.frame['source'].iloc[row]}: has no annotation of boxes (an empty list would be [])"
            )
        return list(json.loads(text))

    def masks(self) -> NDArray[np.bool_]:
        """(n, S, S) true inside; images without a mask have an empty one.

        Raises:
            UserError: a mask that cannot be read; names the file.
        """
        side = self.pixels.shape[1]
        masks = np.zeros((len(self), side, side), dtype=bool)
        for row, path in enumerate(self.frame["mask_path"]):
            if path:
                masks[row] = _read_mask(Path(image_file(self.folder, path)), side)
        return masks


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


def _read_mask(path: Path, side: int) -> NDArray[np.bool_]:
    """A stored mask placed as its image is, inside where at least half of a pixel is."""
    with open_picture(path) as image:
        gray = np.asarray(image.convert("L"))
    return fit_in_square(gray, side, Image.Resampling.BOX) >= 128
