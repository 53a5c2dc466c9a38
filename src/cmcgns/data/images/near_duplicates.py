"""Pictures that are the same but for compression, size, brightness or a narrow crop.

A 256-bit hash within 8 bits proposes a pair, the correlation of small thumbnails decides. The hash says which of
16×16 places of the smoothed picture are brighter than its median. Each picture has two hashes and two thumbnails, of
the whole and without a narrow margin, and one of them is compared whole: so a crop of up to about 2 % a side is
found.

On 824 radiographs of NIH ChestX-ray14 (339,076 pairs) the most similar different pictures correlate at 0.965, most of
them follow-ups of one patient; copies (JPEG of quality 20, half the size, gamma 0.85, 1 or 2 % cropped off every
side) at 0.986 and more. Inverted ones are not looked for.

Mirrored and turned copies are found among pairs that something else proposes, for all pairs of a large set cannot be
tried so. The thumbnails are first compared in the eight positions that mirrors and quarter turns give; in the best of
these one is turned by up to 6° and scaled by up to a quarter, and their middles are compared. What is found, and how
alike different pictures can become: docs/evaluation.md; `benchmarks/near_duplicates.py` measures it.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cmcgns.data.images.place import without_padding

DISTANCE = 8  # bits of 256
CORRELATION = 0.98
SIDE = 32  # of thumbnails
_GRID = 16
_MARGIN = 0.015  # of each side, for the second hash and thumbnail
_BLOCK = (128, 16_384)  # pairs compared at once: 16 MB
_WORTHWHILE = 0.75  # correlation of the middles before the fine search; less is another picture
_ANGLES = np.deg2rad(np.arange(-6, 6.1, 1.5))
_SCALES = (0.8, 0.86, 0.93, 1.0, 1.07, 1.15, 1.25)
_MIDDLE = slice(4, SIDE - 4)
_TURNED_AT_ONCE = 1024  # pairs

Hashes = NDArray[np.uint64]
Thumbnails = NDArray[np.uint8]
Floats = NDArray[np.float32]

_STEPS = np.arange(_GRID)
_SMOOTH = np.exp(-((_STEPS[:, None] - _STEPS) ** 2) / 2)
_SMOOTH /= _SMOOTH.sum(axis=1, keepdims=True)
_SPREAD = np.argsort(np.arange(_GRID * _GRID) * 37 % (_GRID * _GRID))  # neighbours go to different words


def thumbnail(pixels: NDArray[np.generic]) -> Thumbnails:
    """A picture of any number range as (32, 32) uint8, stretched to 0-255; black if constant.

    Args:
        pixels: (height, width), whole or real numbers.
    """
    picture = Image.fromarray(np.asarray(pixels, dtype=np.float32))
    small = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX))
    low, high = float(small.min()), float(small.max())
    return ((small - low) * (255 / max(high - low, 1e-6))).round().astype(np.uint8)


def hash_thumbnail(small: Thumbnails) -> Hashes:
    """(32, 32) -> (4,) uint64, 256 bits: which places of the smoothed picture are brighter than its median.

    Unlike pictures differ in about 128 of them, copies in few.
    """
    cells = small.reshape(_GRID, SIDE // _GRID, _GRID, SIDE // _GRID).mean(axis=(1, 3))
    cells = _SMOOTH @ cells @ _SMOOTH.T
    # In a picture that is black for the most part the median would be noise.
    level = max(float(np.median(cells)), float(cells.min() + 0.05 * np.ptp(cells)))
    return np.packbits((cells > level).ravel()[_SPREAD]).view(np.uint64)


def signature(pixels: NDArray[np.generic]) -> tuple[Hashes, Thumbnails]:
    """What :func:`near_duplicates` compares of a picture.

    Args:
        pixels: (height, width), whole or real numbers.

    Returns:
        (2, 4) hashes and (2, 32, 32) thumbnails, of the whole picture and without its margin.
    """
    height, width = pixels.shape
    top, left = round(height * _MARGIN), round(width * _MARGIN)
    both = np.stack([thumbnail(pixels), thumbnail(pixels[top : height - top, left : width - left])])
    return np.stack([hash_thumbnail(small) for small in both]), both


def near_duplicates(
    hashes: Hashes, thumbnails: Thumbnails, others: tuple[Hashes, Thumbnails] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Pairs of pictures that are the same picture.

    Args:
        hashes: (n, 2, 4) as :func:`signature` gives them; constant pictures should not be among them.
        thumbnails: (n, 2, 32, 32).
        others: hashes (m, 2, 4) and thumbnails (m, 2, 32, 32) to compare with; None: among themselves.

    Returns:
        (p, 2) positions, the second in `others` if given, else the larger one; and their (p,) correlations.
    """
    other_hashes, other_thumbnails = others if others is not None else (hashes, thumbnails)
    found: dict[tuple[int, int], float] = {}
    for first, second in ((0, 0), (0, 1), (1, 0)):
        for pairs in _within_distance(hashes[:, first], other_hashes[:, second], among=others is None):
            similar = _correlate(thumbnails[pairs[:, 0], first], other_thumbnails[pairs[:, 1], second])
            same = similar >= CORRELATION
            for (one, other), value in zip(pairs[same].tolist(), similar[same].tolist(), strict=True):
                found[one, other] = max(value, found.get((one, other), 0.0))
    pairs = np.array(sorted(found), dtype=np.int64).reshape(-1, 2)
    return pairs, np.array([found[pair] for pair in sorted(found)], dtype=np.float32)


def connected(count: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Groups of positions that are joined by pairs, if by way of others.

    Args:
        count: number of positions.
        pairs: (p, 2) positions.

    Returns:
        (count,) smallest position of the group that each is in.
    """
    group = np.arange(count)
    changed = True
    while changed:
        lowest = group.copy()
        np.minimum.at(lowest, pairs[:, 0], group[pairs[:, 1]])
        np.minimum.at(lowest, pairs[:, 1], group[pairs[:, 0]])
        changed = not np.array_equal(lowest, group)
        group = lowest
    return group


def _within_distance(one: Hashes, other: Hashes, among: bool) -> Iterator[NDArray[np.int64]]:
    """Blocks of (p, 2) positions whose (n, 4) and (m, 4) hashes differ in at most 8 bits; all pairs are looked at."""
    words, other_words = np.ascontiguousarray(one.T), np.ascontiguousarray(other.T)
    height, width = _BLOCK
    for top in range(0, len(one), height):
        for left in range(top if among else 0, len(other), width):
            rows, columns = slice(top, top + height), slice(left, left + width)
            # Few pairs survive the first word, so the others are compared for those alone.
            distance = np.bitwise_count(words[0, rows, None] ^ other_words[0, None, columns])
            places = np.flatnonzero(distance <= DISTANCE)
            total = distance.ravel()[places]
            row, column = np.divmod(places, distance.shape[1])
            row, column = row + top, column + left
            for word in (1, 2, 3):
                total = total + np.bitwise_count(words[word, row] ^ other_words[word, column])
                near = (total <= DISTANCE) & (row < column) if among else total <= DISTANCE
                row, column, total = row[near], column[near], total[near]
            if len(row):
                yield np.stack([row, column], axis=1)


def _correlate(one: Thumbnails, other: Thumbnails) -> NDArray[np.float32]:
    """(p, 32, 32) twice -> (p,) Pearson correlations; 0 where a thumbnail is constant. Works in chunks."""
    values = np.zeros(len(one), dtype=np.float32)
    for start in range(0, len(one), 4096):
        chunk = slice(start, start + 4096)
        values[chunk] = (standardise(one[chunk]) * standardise(other[chunk])).sum(axis=1)
    return values


def standardise(pictures: NDArray[np.generic]) -> NDArray[np.float32]:
    """(p, h, w) -> (p, h·w) of mean 0 and length 1, so that products sum up to correlations; 0 if constant."""
    flat = np.asarray(pictures, dtype=np.float32).reshape(len(pictures), pictures.shape[1] * pictures.shape[2])
    flat = flat - flat.mean(axis=1, keepdims=True)
    standard: NDArray[np.float32] = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return standard


def best_correlation(one: Thumbnails, other: Thumbnails) -> Floats:
    """Highest correlation of two pictures over mirrors, turns and scales.

    Args:
        one: (p, 32, 32), the first of each pair.
        other: (p, 32, 32), the second.

    Returns:
        (p,) from -1 to 1; 0.98 (`CORRELATION`) and more is the same picture.
    """
    parts = [slice(start, start + _TURNED_AT_ONCE) for start in range(0, len(one), _TURNED_AT_ONCE)]
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


FIELDS: list[tuple[str, Any, tuple[int, ...]]] = [
    ("comparable", np.bool_, ()),  # false: constant, or its pixels were not there
    ("hashes", np.uint64, (2, 4)),
    ("thumbnails", np.uint8, (2, SIDE, SIDE)),
]
SIGNATURE = np.dtype(FIELDS)
Signatures = NDArray[np.void]
_SQUARES_AT_ONCE = 256  # images a thread takes at a time


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
        block = rows[start : start + _SQUARES_AT_ONCE]
        for place, square in enumerate(squares[block], start):
            picture = without_padding(square, *sizes[place].tolist())
            if picture.min() < picture.max():
                found["hashes"][place], found["thumbnails"][place] = signature(picture)
                found["comparable"][place] = True
        return len(block)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in pool.map(fill, range(0, len(rows), _SQUARES_AT_ONCE)):
            if progress:
                progress(done)
    return found
