"""One antialiased resize of a gray picture, and the file that is kept of it."""

import io
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cmcgns.common.errors import UserError
from cmcgns.common.files import write_bytes
from cmcgns.data.images.cache import MAX_PIXELS

Gray: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]
JPEG_QUALITY = 95


def check_size(width: int, height: int, path: Path) -> None:
    """Refuse a picture by the size that its header states, before anything is decoded.

    Raises:
        UserError: no pixels, or more than the bound.
    """
    if width < 1 or height < 1:
        raise UserError(f"{path}: {width}×{height} pixels are no picture")
    if width * height > MAX_PIXELS:
        raise UserError(f"{path}: {width}×{height} pixels are more than the bound {MAX_PIXELS}")


def scaled_size(width: int, height: int, long_side: int, enlarge: bool = False) -> tuple[int, int]:
    """Width and height with the long side at `long_side`; smaller pictures keep their size unless `enlarge`."""
    longest = max(width, height)
    if longest == long_side or (longest < long_side and not enlarge):
        return width, height
    return max(1, round(width * long_side / longest)), max(1, round(height * long_side / longest))


def resize(pixels: Gray, long_side: int, enlarge: bool = False) -> Gray:
    """Resize once, antialiased (a triangle filter as wide as the reduction), aspect kept to the nearest pixel.

    Args:
        pixels: (H,W) uint8 or uint16.
        long_side: of the result, pixels.
        enlarge: also when the picture is smaller.

    Returns:
        (h,w) of the same type; the same array where nothing is to be done.
    """
    height, width = pixels.shape
    size = scaled_size(width, height, long_side, enlarge)
    if size == (width, height):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def scale_factors(width: int, height: int, pixels: Gray) -> tuple[float, float]:
    """What boxes and masks of the source picture are multiplied with.

    The two differ slightly, because each side is rounded to whole pixels.

    Args:
        width: of the source picture.
        height: of the source picture.
        pixels: (h,w), the picture as it is stored.

    Returns:
        (sx, sy): of x and width, of y and height.
    """
    return pixels.shape[1] / width, pixels.shape[0] / height


def save_image(pixels: Gray, high: int, path: Path, lossless: bool = False) -> None:
    """Write a gray picture; the file is whole or not there (or empty, after a power failure).

    Args:
        pixels: (H,W) uint8 or uint16.
        high: the value that means white.
        path: the file; its suffix is the caller's business.
        lossless: PNG of as many bits as the pixels have (16: white is 65535), else 8-bit JPEG of quality 95.
    """
    buffer = io.BytesIO()
    if lossless:
        white = 255 if pixels.dtype == np.uint8 else 65535
        Image.fromarray(scale_values(pixels, high, white)).save(buffer, "PNG")
    else:
        Image.fromarray(scale_values(pixels, high, 255)).save(buffer, "JPEG", quality=JPEG_QUALITY)
    write_bytes(path, buffer.getvalue(), durable=False)


def scale_values(pixels: Gray, high: int, white: int) -> Gray:
    """Pixels whose white is `white` (255: uint8, else uint16), rounded to the nearest; above `high` is white."""
    if high == white:
        return pixels
    values = (np.minimum(pixels, high).astype(np.uint64) * white + high // 2) // high
    return values.astype(np.uint8) if white == 255 else values.astype(np.uint16)
