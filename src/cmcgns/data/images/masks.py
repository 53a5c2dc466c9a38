"""Masks: SIIM's run-length code, mask files, and the PNG that the manifest keeps."""

import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from cmcgns.common.errors import UserError
from cmcgns.common.files import inside, write_bytes
from cmcgns.data.images.files import open_picture
from cmcgns.data.images.place import check_size

NO_MASK = "-1"
Mask = NDArray[np.bool_]


def parse_rle(code: str, height: int, width: int, where: str = "run-length code") -> NDArray[np.int64]:
    """The runs of SIIM's relative code.

    Args:
        code: pairs "gap length", separated by blanks; a gap counts from the end of the last run, the first one from
            the first pixel. `-1` or nothing is no mask.
        height: of the image, pixels.
        width: of the image, pixels.
        where: named in messages, e.g. the file and its row.

    Returns:
        (runs, 2) gaps and lengths.

    Raises:
        UserError: an odd number of values, values that are no whole number or negative, runs past the last pixel.
    """
    words = code.split()
    if words in ([], [NO_MASK]):
        return np.zeros((0, 2), dtype=np.int64)
    try:
        values = np.array([int(word) for word in words], dtype=np.int64)
    except (ValueError, OverflowError):
        wrong = next(word for word in words if not re.fullmatch(r"[+-]?\d{1,18}", word))
        raise UserError(f"{where}: {wrong[:40]!r} in the run-length code is no whole number of pixels") from None
    if (values < 0).any():
        raise UserError(f"{where}: {values[values < 0][0]} in the run-length code is negative")
    if len(values) % 2:
        raise UserError(f"{where}: the run-length code has {len(values)} values, an odd number; the last has no pair")
    # Each value first: a sum of huge ones could wrap around.
    if values.max() > height * width or values.sum() > height * width:
        raise UserError(f"{where}: the run-length code runs past the last pixel of {width}×{height}")
    return values.reshape(-1, 2)


def decode_rle(codes: Iterable[str], height: int, width: int) -> Mask:
    """All masks of an image as one, from SIIM's relative, column-major run-length codes.

    Args:
        codes: see `parse_rle`; without any the mask is empty.
        height: of the image, pixels.
        width: of the image, pixels.

    Returns:
        (height, width) Boolean, true inside.

    Raises:
        UserError: see `parse_rle`; or an image of no size or too many pixels.
    """
    check_size(width, height, "run-length code")
    union = np.zeros(height * width, dtype=bool)
    for code in codes:
        runs = parse_rle(code, height, width).ravel()
        lengths = np.append(runs, height * width - runs.sum())
        union |= np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)  # gap, run, gap, run, …, rest
    return union.reshape(width, height).T


def encode_rle(mask: Mask) -> str:
    """SIIM's relative, column-major run-length code of a mask (height, width); `-1` if it is empty."""
    flat = np.asarray(mask, dtype=bool).T.ravel()
    edges = np.flatnonzero(np.diff(flat, prepend=False, append=False))
    if not len(edges):
        return NO_MASK
    return " ".join(map(str, np.diff(edges, prepend=0)))  # distances between edges are gap, length, gap, length, …


def mask_from_source(spec: dict[str, Any], root: Path) -> Mask:
    """The mask that a reader's `mask` cell describes, at the size of the source image.

    Args:
        spec: `{"rle": ["…"], "width": 1024, "height": 1024}` or `{"file": "masks/a.png"}`.
        root: folder of the dataset; files must lie below it.

    Returns:
        (height, width) Boolean, true inside; in a file every value above 0 is inside (transparency is ignored).

    Raises:
        UserError: an unknown description, a bad code, or a file that is missing, unreadable, oversized or outside.
    """
    if isinstance(spec.get("file"), str):
        return read_mask(inside(root, root / spec["file"]))
    codes, size = spec.get("rle"), (spec.get("height"), spec.get("width"))
    if not isinstance(codes, list) or not all(isinstance(side, int) for side in size):
        raise UserError(f"mask {str(spec)[:80]}: either `file`, or `rle` (a list), `width` and `height` are expected")
    return decode_rle([str(code) for code in codes], spec["height"], spec["width"])


def read_mask(path: Path) -> Mask:
    """A mask file at its own size.

    Returns:
        (height, width) Boolean, upright, true inside: where any value is above 0 (transparency is ignored).

    Raises:
        UserError: missing, unreadable or oversized; names it.
    """
    with open_picture(path) as image:
        ImageOps.exif_transpose(image, in_place=True)  # as the picture is that it belongs to
        values = np.asarray(_without_transparency(image))
    within = np.asarray(values > 0)
    return np.asarray(within.any(axis=2)) if within.ndim == 3 else within


def _without_transparency(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "PA"):
        return image.convert("RGB")
    return image.convert("L") if image.mode == "LA" else image


def resize_mask(mask: Mask, size: tuple[int, int]) -> Mask:
    """A mask at another size: a pixel is inside when at least half of its area was.

    Enlarging by a whole factor therefore repeats pixels. Parts thinner than half a new pixel vanish.

    Args:
        mask: (height, width) Boolean.
        size: new (height, width).

    Returns:
        Boolean of the new size.
    """
    if mask.shape == size:
        return mask
    across = _sums_of_parts(np.asarray(mask, dtype=bool), size[1])
    area = _sums_of_parts(np.ascontiguousarray(across.T), size[0]).T
    return np.asarray(2 * area >= mask.shape[0] * mask.shape[1])


def _sums_of_parts(values: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Every row cut into equal parts, and each part summed; a border takes its share of the value that it crosses.

    Borders lie at whole numbers of 1/count of a value. In that unit all sums are whole numbers, so that no rounding
    decides about an exact half.

    Args:
        values: (rows, length) Boolean or whole numbers, whose sum is at most `place.MAX_PIXELS`.
        count: of the parts.

    Returns:
        (rows, count) sums, times `count`: a part of ones has `length`.
    """
    length = values.shape[1]
    sums = np.zeros((len(values), length + 1), dtype=np.int32)
    np.cumsum(values, axis=1, out=sums[:, 1:])
    whole, share = np.divmod(np.arange(count + 1, dtype=np.int64) * length, count)
    before, after = sums[:, whole].astype(np.int64), sums[:, np.minimum(whole + 1, length)]
    parts: NDArray[np.int64] = np.diff(before * count + (after - before) * share, axis=1)
    return parts


def save_mask(mask: Mask, path: Path) -> None:
    """Write a mask (height, width) as 8-bit gray PNG, 255 inside and 0 outside; whole or not at all."""
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(mask, dtype=np.uint8) * np.uint8(255)).save(buffer, format="PNG")
    write_bytes(path, buffer.getvalue(), durable=False)


SIIM_SIDE = 1024  # of every image of the challenge, pixels
