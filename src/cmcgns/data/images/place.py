"""Sizes and places: how a picture is scaled, centred on a square and cropped, and where that takes its boxes.

A radiograph is scaled until its long side is that of the square, and centred on black; encoders see a crop from the
middle. Boxes and masks go the same way, and maps come back by it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cmcgns.common.errors import UserError

MAX_PIXELS = 89_000_000  # Pillow calls more a decompression bomb; the largest digitised films have 40 million
RESAMPLING = Image.Resampling.BILINEAR  # Pillow's is antialiased: as wide as the reduction
Pixels = NDArray[np.uint8]
Scalar = TypeVar("Scalar", bound=np.generic)
Gray: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]


def check_size(width: int, height: int, name: object) -> None:
    """Refuse a picture by the size that its header states, before anything is decoded.

    Args:
        width: pixels.
        height: pixels.
        name: of the file, for the message.
    """
    if width < 1 or height < 1:
        raise UserError(f"{name}: {width}×{height} pixels are no picture")
    if width * height > MAX_PIXELS:
        raise UserError(f"{name}: {width}×{height} pixels are more than the bound {MAX_PIXELS}")


def scaled_size(width: int, height: int, long_side: int) -> tuple[int, int]:
    """Width and height with the long side at `long_side`; smaller pictures keep their size."""
    longest = max(width, height)
    if longest <= long_side:
        return width, height
    return max(1, round(width * long_side / longest)), max(1, round(height * long_side / longest))


def resize(pixels: Gray, long_side: int) -> Gray:
    """Resize once, antialiased (a triangle filter as wide as the reduction), aspect kept to the nearest pixel.

    Args:
        pixels: (H,W) uint8 or uint16.
        long_side: of the result, pixels; smaller pictures keep their size.

    Returns:
        (h,w) of the same type; the same array where nothing is to be done.
    """
    height, width = pixels.shape
    size = scaled_size(width, height, long_side)
    if size == (width, height):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(size, RESAMPLING))


class Place(NamedTuple):
    """Where a picture lies in a square: what to multiply its pixels with, and the rectangle that they fill."""

    scale: float
    left: int
    top: int
    width: int
    height: int

    @property
    def inside(self) -> tuple[slice, slice]:
        """Rows and columns of the picture in the square."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


def place_in_square(width: int, height: int, size: int) -> Place:
    """How a picture is centred on a square of a side, its long side becoming that."""
    scale = size / max(width, height)
    wide, high = (max(1, round(side * scale)) for side in (width, height))
    return Place(scale, (size - wide) // 2, (size - high) // 2, wide, high)


def have_one_shape(one: tuple[int, ...], other: tuple[int, ...], size: int) -> bool:
    """Whether two pictures (height, width) are placed alike on a square of a side, within a pixel of rounding."""
    first, second = (place_in_square(wide, high, size) for high, wide in (one, other))
    return max(abs(first.width - second.width), abs(first.height - second.height)) <= 1


def fit_in_square(pixels: Pixels, size: int, resampling: Image.Resampling = RESAMPLING) -> Pixels:
    """A picture (H, W), long side to `size`, centred on black: (size, size); what has the size already is kept."""
    place = place_in_square(pixels.shape[1], pixels.shape[0], size)
    if pixels.shape != (place.height, place.width):
        gap = 3.0 if resampling is RESAMPLING else None
        resized = Image.fromarray(pixels).resize((place.width, place.height), resampling, reducing_gap=gap)
        pixels = np.asarray(resized)
    square = np.zeros((size, size), dtype=np.uint8)
    square[place.inside] = pixels
    return square


def without_padding(square: Pixels, width: int, height: int) -> Pixels:
    """The picture inside a square of `fit_in_square`: black bars would make unlike radiographs look alike.

    Args:
        square: (S, S).
        width: of the picture, in any unit.
        height: of the picture; 0: not known, and the square is taken whole.

    Returns:
        (h, w); the whole square if there is anything outside of a picture of that aspect.
    """
    if width <= 0 or height <= 0:
        return square
    rows, columns = place_in_square(width, height, len(square)).inside
    outside = (square[: rows.start], square[rows.stop :], square[:, : columns.start], square[:, columns.stop :])
    return square if any(bar.any() for bar in outside) else square[rows, columns]


def centre_crop(pixels: NDArray[Scalar], size: int) -> NDArray[Scalar]:
    """(n, S, S) -> (n, size, size), as in evaluation; of pixels or of masks."""
    first = (pixels.shape[1] - size) // 2
    inside = slice(first, first + size)
    return np.ascontiguousarray(pixels[:, inside, inside])


def place_boxes(
    boxes: Sequence[Mapping[str, Any]], width: int, height: int, size: int, crop: int | None = None
) -> NDArray[np.float64]:
    """Boxes of a picture, where its square or the crop from the middle of that shows them.

    Args:
        boxes: k of a manifest, with x, y, width and height in pixels of the stored picture.
        width: of the stored picture.
        height: of the stored picture.
        size: S, side of the square.
        crop: side of the crop; None: the whole square.

    Returns:
        (k, 4) x0, y0, x1, y1 in pixels of the square or crop; they may reach out of the crop.
    """
    place = place_in_square(width, height, size)
    corners = [(box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]) for box in boxes]
    placed = np.array(corners, dtype=np.float64).reshape(-1, 4) * place.scale
    placed += [place.left, place.top, place.left, place.top]
    return placed if crop is None else placed - (size - crop) // 2
