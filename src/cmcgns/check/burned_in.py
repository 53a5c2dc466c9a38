"""A hint that text is burned into a picture: lines of many thin, bright strokes.

A cheap heuristic, not a reader: it looks for rows of pixels that cross many strokes, as a line of letters does. A
side marker ("L", "R") has too few strokes. Faint, dark or tiny letters and single initials are missed; wires, grids
and ruler marks may be taken for text. Hence a note, never more.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cmcgns.data.images import Pixels

TEXT_ROWS = 5  # rows of pixels in a line that cross enough strokes
_LONG_SIDE = 1024  # larger pictures are reduced
_STROKE = 7  # pixels: strokes are thinner; `_slide` is written for 7
_CONTRAST = 80  # of 255, above the surroundings
_BRIGHT = 200  # of 255
_WINDOW = 96  # pixels of a row looked at together
_CROSSINGS = 7  # strokes in them: four letters or more
_BORDER = 0.25  # of the sides; letters are burned into margins, leads and clips lie in the middle


def count_text_rows(grey: NDArray[np.float32]) -> int:
    """How many successive rows of pixels near the border cross many thin bright strokes.

    Args:
        grey: (height, width), any range.

    Returns:
        The longest run of such rows; :data:`TEXT_ROWS` or more hint at text.
    """
    low, high = float(grey.min()), float(grey.max())
    if high <= low or min(grey.shape) < _STROKE:
        return 0
    image = Image.fromarray(((grey - low) * (255 / (high - low))).astype(np.uint8))
    image.thumbnail((_LONG_SIDE, _LONG_SIDE), reducing_gap=2.0)
    pixels = np.asarray(image)
    surroundings = _slide(_slide(pixels, np.minimum), np.maximum)  # an opening: no thin stroke is left
    strokes = (pixels >= _BRIGHT) & (pixels - surroundings >= _CONTRAST)  # an opening is nowhere brighter
    starts = np.diff(strokes, axis=1, prepend=False) & strokes
    many = np.flatnonzero(starts.sum(axis=1) >= _CROSSINGS)  # few rows, so the rest is done for these alone
    if len(many) < TEXT_ROWS:
        return 0
    hits = np.zeros(starts.shape, dtype=bool)
    hits[many] = _crossings(starts[many]) >= _CROSSINGS
    return _longest_run(_near_border(hits))


def _slide(pixels: Pixels, extreme: np.ufunc) -> Pixels:
    """(h, w) -> (h, w): smallest or largest value of the square of 7 pixels a side round each, by doubling."""
    for _ in range(2):
        padded = np.pad(pixels, ((_STROKE // 2, _STROKE // 2), (0, 0)), mode="edge")
        two = extreme(padded[1:], padded[:-1])
        four = extreme(two[2:], two[:-2])
        pixels = np.ascontiguousarray(extreme(four[3:], four[:-3]).T)
    return pixels


def _crossings(starts: NDArray[np.bool_]) -> NDArray[np.int32]:
    """(h, w) -> (h, w) number of strokes that begin in the window of a row that starts here."""
    total = np.cumsum(np.pad(starts, ((0, 0), (1, _WINDOW))), axis=1, dtype=np.int32)
    return total[:, _WINDOW:][:, : starts.shape[1]] - total[:, : starts.shape[1]]


def _near_border(hits: NDArray[np.bool_]) -> NDArray[np.bool_]:
    height, width = hits.shape
    top, left = round(height * _BORDER), round(width * _BORDER)
    hits[top : height - top, left : max(left, width - left - _WINDOW)] = False
    return hits


def _longest_run(hits: NDArray[np.bool_]) -> int:
    """Longest run of rows that hit in the same strip; strips overlap by half a window."""
    longest = 0
    for left in range(0, hits.shape[1], _WINDOW // 2):
        rows = hits[:, left : left + _WINDOW].any(axis=1)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], rows, [False]])))
        if len(edges):
            longest = max(longest, int((edges[1::2] - edges[::2]).max()))
    return longest
