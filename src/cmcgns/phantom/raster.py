"""Small drawing tools on square float32 canvases with relative coordinates (0 to 1, pixel centres)."""

from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
_ZERO, _ONE = np.float32(0), np.float32(1)


@lru_cache(maxsize=32)
def pixel_centres(size: int) -> Array:
    """Relative positions of ``size`` pixel centres, shape (size,)."""
    centres: Array = np.asarray((np.arange(size) + 0.5) / size, np.float32)
    centres.setflags(write=False)
    return centres


@lru_cache(maxsize=64)
def resampler(source: int, target: int) -> Array:
    """Matrix (target, source) that resamples a signal linearly, widened when it shrinks to avoid aliasing."""
    positions = (np.arange(target) + 0.5) * (source / target) - 0.5
    support = max(1.0, source / target)
    weights = np.clip(1 - np.abs(positions[:, None].clip(0, source - 1) - np.arange(source)) / support, 0, None)
    matrix: Array = np.divide(weights, weights.sum(axis=1, keepdims=True)).astype(np.float32)
    matrix.setflags(write=False)
    return matrix


@lru_cache(maxsize=16)
def even_steps(count: int) -> Array:
    """``count`` numbers from 0 to 1, shape (count,)."""
    steps = np.linspace(0, 1, count, dtype=np.float32)
    steps.setflags(write=False)
    return steps


def resize(grid: Array, size: int) -> Array:
    """Resample ``grid`` (h, w) to (size, size)."""
    if grid.shape == (size, size):
        return grid
    resized: Array = np.dot(np.dot(resampler(grid.shape[0], size), grid), resampler(grid.shape[1], size).T)
    return resized


def smooth_noise(rng: np.random.Generator, cells: int, size: int) -> Array:
    """Noise of about unit variance whose grain is ``1 / cells`` of the image, shape (size, size)."""
    return resize(rng.standard_normal((cells, cells), dtype=np.float32), size)


def grain(rng: np.random.Generator, size: int) -> Array:
    """Independent noise per pixel of unit variance, nearly normal and several times as fast, (size, size)."""
    draws = np.frombuffer(rng.bytes(4 * size * size), np.int8).reshape(4, size, size)
    total: Array = draws.sum(axis=0, dtype=np.int16).astype(np.float32)
    total += np.float32(2.0)  # a signed byte's mean is -0.5
    total *= np.float32(1 / 147.8)  # four bytes, each of variance (256**2 - 1) / 12
    return total


def window(values: Array, low: float, high: float) -> slice:
    """The pixels whose coordinate in ascending ``values`` lies between ``low`` and ``high``."""
    return slice(*values.ravel().searchsorted((low, high)).tolist())


def clamp(values: Array, out: Array | None = None) -> Array:
    """Values between 0 and 1; the method takes half the time of `np.clip`, and a study has fifty of them."""
    clamped: Array = values.clip(_ZERO, _ONE, out=out)
    return clamped


def ramp(distance: Array, width: float) -> Array:
    """A soft step: 0 below ``-width / 2``, 1 above ``width / 2``, linear between; any shape."""
    step: Array = distance * np.float32(1 / width)
    step += np.float32(0.5)
    return clamp(step, step)


def bump(values: Array, centre: float, width: float) -> Array:
    """A Gaussian of height 1, same shape as ``values``."""
    scaled = (values - np.float32(centre)) * np.float32(1 / width)
    result: Array = np.exp(-scaled * scaled)
    return result


def splat(x: Array, y: Array, weight: Array, size: int) -> Array:
    """Spread weighted points at relative positions over the four nearest pixels, shape (size, size)."""
    column, row = x * size - 0.5, y * size - 0.5
    inside = (column >= 0) & (column < size - 1) & (row >= 0) & (row < size - 1)
    column, row, weight = column[inside], row[inside], weight[inside]
    left, top = column.astype(np.int64), row.astype(np.int64)
    right_share, low_share = column - left, row - top
    corner = top * size + left
    cells = np.concatenate((corner, corner + 1, corner + size, corner + size + 1))
    upper, lower = weight * (1 - low_share), weight * low_share
    shares = np.concatenate(
        (upper * (1 - right_share), upper * right_share, lower * (1 - right_share), lower * right_share)
    )
    canvas: Array = np.bincount(cells, shares, size * size).astype(np.float32).reshape(size, size)
    return canvas


def stroke(points: NDArray[np.float64], width: float, size: int) -> Array:
    """A line of relative ``width``, a pixel or more, through ``points`` (n, 2; x, y); (size, size)."""
    canvas = np.zeros((size, size), np.float32)
    centres = pixel_centres(size)
    reach = max(width, 1.0 / size) / 2 + 0.5 / size
    for start, end in pairwise(points):
        low = np.floor((np.minimum(start, end) - reach) * size).astype(int).clip(0, size)
        high = np.ceil((np.maximum(start, end) + reach) * size).astype(int).clip(0, size)
        window = (slice(low[1], high[1]), slice(low[0], high[0]))
        x, y = centres[None, window[1]] - start[0], centres[window[0], None] - start[1]
        along = end - start
        t = ((x * along[0] + y * along[1]) / max(float(along @ along), 1e-9)).clip(0, 1)
        distance = np.hypot(x - t * along[0], y - t * along[1])
        np.maximum(canvas[window], ((reach - distance) * size).clip(0, 1), out=canvas[window])
    return canvas


def bounding_box(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """The tightest box (x, y, width, height) in pixels round a mask (H, W) that is not empty."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    x, y = float(columns[0]), float(rows[0])
    return x, y, float(columns[-1]) + 1 - x, float(rows[-1]) + 1 - y
