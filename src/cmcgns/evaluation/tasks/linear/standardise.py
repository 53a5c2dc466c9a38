"""Standardised features, a block of rows at a time, so that a matrix of 190,000 × 2,048 never exists twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cmcgns.common.errors import UserError
from cmcgns.metrics.ranking import FloatArray, IntArray

_BLOCK_CELLS = 1 << 22  # features of a block: 16 MB as float32
Features = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Scale:
    """What standardising subtracts and divides by.

    Attributes:
        mean: (F,).
        scale: (F,) standard deviation; 1 where a feature varies by no more than rounding.
    """

    mean: FloatArray
    scale: FloatArray


@dataclass(frozen=True)
class Design:
    """Some rows of a matrix of features, standardised when they are read.

    Attributes:
        features: (N, F), floating; may be memory-mapped.
        rows: (n,) which of them, rising.
        scale: mean and deviation.
        dtype: in which to compute.
        device: where to compute.
    """

    features: Features
    rows: IntArray
    scale: Scale
    dtype: torch.dtype
    device: torch.device

    @property
    def width(self) -> int:
        """F."""
        return int(self.features.shape[1])

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Positions in `rows`, and their standardised features (b, F)."""
        mean, scale = (
            torch.from_numpy(values).to(self.device, self.dtype) for values in (self.scale.mean, self.scale.scale)
        )
        for place, values in _blocks(self.features, self.rows):
            block = torch.from_numpy(values).to(self.device, self.dtype)
            yield place, block.sub_(mean).div_(scale)

    def thinned(self, most: int) -> Design:
        """This design with at most `most` of its rows, evenly spaced."""
        if len(self.rows) <= most:
            return self
        kept = self.rows[np.linspace(0, len(self.rows) - 1, most).astype(np.intp)]
        return Design(self.features, kept, self.scale, self.dtype, self.device)


def measure_scale(features: Features, rows: IntArray) -> Scale:
    """Mean and standard deviation of some rows, in double precision.

    Raises:
        UserError: a feature that is not finite; names the first such row.
    """
    total, squares = (torch.zeros(features.shape[1], dtype=torch.float64) for _ in range(2))
    guess: Tensor | None = None  # near the mean, so that squares lose no digits
    for place, values in _blocks(features, rows):
        block = torch.from_numpy(values).double()
        if guess is None:
            guess = block.nan_to_num().mean(0)
        block = block - guess
        total += block.sum(0)
        squares += block.square().sum(0)
        if not torch.isfinite(squares).all():
            bad = np.logical_not(np.isfinite(values).all(axis=1))
            first = rows[place.start + int(bad.argmax())]
            raise UserError(f"features of row {first} are not finite ({bad.sum()} such rows among {len(values)})")
    assert guess is not None
    shift = total / len(rows)
    mean, deviation = (guess + shift).numpy(), (squares / len(rows) - shift.square()).clamp(min=0).sqrt().numpy()
    return Scale(mean, np.where(deviation > 1e-6 * np.abs(mean), deviation, 1.0))


def _blocks(features: Features, rows: IntArray) -> Iterator[tuple[slice, Features]]:
    """Copies of some rows at a time; a stretch of neighbours is copied as one."""
    step = max(1, _BLOCK_CELLS // features.shape[1])
    for start in range(0, len(rows), step):
        wanted = rows[start : start + step]
        neighbours = wanted[-1] - wanted[0] == len(wanted) - 1
        values = features[wanted[0] : wanted[-1] + 1].copy() if neighbours else features[wanted]
        yield slice(start, start + len(wanted)), np.asarray(values)
