"""Whether two pictures are the same after a mirror, a turn or a crop, for pairs that something else proposes.

All pairs of a large set cannot be tried so. The thumbnails are first compared in the eight positions that mirrors
and quarter turns give; in the best of these one is turned by up to 6° and scaled by up to a quarter, and their
middles are compared.

What is found, and how alike different pictures can become: docs/evaluation.md; `benchmarks/near_duplicates.py`
measures it.
"""

import numpy as np
from numpy.typing import NDArray

from cmcgns.data.images.near_duplicates import SIDE, Thumbnails, standardise

_WORTHWHILE = 0.75  # correlation of the middles before the fine search; less is another picture
_ANGLES = np.deg2rad(np.arange(-6, 6.1, 1.5))
_SCALES = (0.8, 0.86, 0.93, 1.0, 1.07, 1.15, 1.25)
_MIDDLE = slice(4, SIDE - 4)
_CHUNK = 1024

Floats = NDArray[np.float32]


def best_correlation(one: Thumbnails, other: Thumbnails) -> Floats:
    """Highest correlation of two pictures over mirrors, turns and scales.

    Args:
        one: (p, 32, 32), the first of each pair.
        other: (p, 32, 32), the second.

    Returns:
        (p,) from -1 to 1; 0.98 (`near_duplicates.CORRELATION`) and more is the same picture.
    """
    parts = [slice(start, start + _CHUNK) for start in range(0, len(one), _CHUNK)]
    return np.concatenate([np.empty(0, np.float32), *(_best(one[part], other[part]) for part in parts)])


def _best(one: Thumbnails, other: Thumbnails) -> Floats:
    target = standardise(other[:, _MIDDLE, _MIDDLE])
    turned = np.stack(_positions(one.astype(np.float32)))
    coarse = np.stack([(standardise(each[:, _MIDDLE, _MIDDLE]) * target).sum(axis=1) for each in turned])
    best: Floats = coarse.max(axis=0)
    rows = np.flatnonzero(best >= _WORTHWHILE)
    upright = turned[coarse.argmax(axis=0)[rows], rows]
    for angle in _ANGLES:
        for scale in _SCALES:
            correlation = (standardise(_moved(upright, angle, scale)) * target[rows]).sum(axis=1)
            best[rows] = np.maximum(best[rows], correlation)
    return best


def _positions(pictures: Floats) -> list[Floats]:
    quarter = [np.rot90(pictures, turns, (1, 2)) for turns in range(4)]
    return quarter + [each[:, :, ::-1] for each in quarter]


def _moved(pictures: Floats, angle: float, scale: float) -> Floats:
    """(p, 24, 24) middles after a turn about the centre, between four neighbours."""
    centre = (SIDE - 1) / 2
    y, x = np.mgrid[_MIDDLE, _MIDDLE].astype(np.float64) - centre
    down = (np.cos(angle) * y - np.sin(angle) * x) * scale + centre
    right = (np.sin(angle) * y + np.cos(angle) * x) * scale + centre
    top, left = (np.clip(np.floor(each), 0, SIDE - 2).astype(np.intp) for each in (down, right))
    low, far = (np.clip(each - first, 0, 1).astype(np.float32) for each, first in ((down, top), (right, left)))
    upper = pictures[:, top, left] * (1 - far) + pictures[:, top, left + 1] * far
    lower = pictures[:, top + 1, left] * (1 - far) + pictures[:, top + 1, left + 1] * far
    moved: Floats = upper * (1 - low) + lower * low
    return moved
