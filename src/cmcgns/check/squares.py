"""What :func:`cmcgns.check.duplicates.near_duplicates` compares, of images that are kept as padded squares."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmcgns.check.duplicates import SIDE, signature
from cmcgns.data.images import Pixels, place_in_square

FIELDS: list[tuple[str, Any, tuple[int, ...]]] = [
    ("comparable", np.bool_, ()),  # false: constant, or its pixels were not there
    ("hashes", np.uint64, (2, 4)),
    ("thumbnails", np.uint8, (2, SIDE, SIDE)),
]
SIGNATURE = np.dtype(FIELDS)
Signatures = NDArray[np.void]
_BLOCK = 256  # images a thread takes at a time


def without_padding(square: Pixels, width: int, height: int) -> Pixels:
    """The picture inside a square of `read_image`: black bars would make unlike radiographs look alike.

    Args:
        square: (S, S).
        width: of the picture, in any unit.
        height: of the picture; 0: not known, and the square is taken whole.

    Returns:
        (h, w); the whole square if there is anything outside of a picture of that aspect.
    """
    if width <= 0 or height <= 0:
        return square
    side = len(square)
    scale, left, top = place_in_square(width, height, side)
    right, bottom = left + max(1, round(width * scale)), top + max(1, round(height * scale))
    outside = (square[:top], square[bottom:], square[:, :left], square[:, right:])
    return square if any(bar.any() for bar in outside) else square[top:bottom, left:right]


def square_signatures(
    squares: Any,
    rows: NDArray[np.int64],
    sizes: NDArray[np.int64],
    out: Signatures | None = None,
    progress: Callable[[int], None] | None = None,
) -> Signatures:
    """Signatures of many images.

    Args:
        squares: (n, S, S) uint8; may be memory-mapped, or anything else that takes an array of rows.
        rows: (k,) which ones.
        sizes: (k, 2) widths and heights of the pictures in the squares; 0: not known.
        out: (k,) array to fill; its other fields stay as they are.
        progress: called with the number of images done since the last call.

    Returns:
        (k,) `SIGNATURE`, or `out`.
    """
    found = np.zeros(len(rows), dtype=SIGNATURE) if out is None else out

    def fill(start: int) -> int:
        block = rows[start : start + _BLOCK]
        for place, square in enumerate(squares[block], start):
            picture = without_padding(square, *sizes[place].tolist())
            if picture.min() < picture.max():
                found["hashes"][place], found["thumbnails"][place] = signature(picture)
                found["comparable"][place] = True
        return len(block)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in pool.map(fill, range(0, len(rows), _BLOCK)):
            if progress:
                progress(done)
    return found
