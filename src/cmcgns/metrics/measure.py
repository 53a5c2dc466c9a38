"""Names of figures, and how they are computed from resampled rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cmcgns.metrics.ranking import FloatArray

Array = npt.NDArray[Any]


@dataclass(frozen=True, order=True)
class Measure:
    """Name of a figure.

    Attributes:
        metric: for example `auroc`, `map`, `dice_positive`, `r@10`.
        label: the class, or empty for the mean over classes and for what has none.
    """

    metric: str
    label: str = ""


@dataclass(frozen=True)
class Measures:
    """Figures of one cell's predictions.

    Attributes:
        of: M names; the first is the one that a table shows.
        compute: counts (R, n), how often each row was drawn, -> (R, M); NaN where a figure is undefined. Weights of 0
            leave rows out, so subgroups need nothing of their own.
    """

    of: tuple[Measure, ...]
    compute: Callable[[npt.NDArray[np.generic]], FloatArray]
