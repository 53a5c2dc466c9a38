"""Drawn masks brought back to the size of the true ones, which is where they are judged, and kept as runs.

At the encoder's size a mask has lost its border and small parts: one that is drawn without a fault at 64 pixels has a
Dice of about 0.975 against the mask itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor
from torch.nn import functional

from cmcgns.data.images.place import place_in_square
from cmcgns.evaluation.image_set import ImageSet
from cmcgns.evaluation.regions import whole_target
from cmcgns.evaluation.task_settings.base import Target
from cmcgns.metrics.measure import Array
from cmcgns.metrics.ranking import BoolArray, IntArray

COUNTS = ("intersection", "predicted", "truth")


def enlarge(probability: Tensor, side: int, height: int, width: int) -> Tensor:
    """Probabilities of a crop from the middle of a square, where the picture in the square is, at the picture's size.

    Args:
        probability: (s, s); outside of the crop nothing is drawn.
        side: S >= s of the square.
        height: of the picture, pixels.
        width: of the picture.

    Returns:
        (height, width), interpolated (antialiased where the picture is smaller).
    """
    first = (side - len(probability)) // 2
    square = probability.new_zeros(side, side)
    square[first : first + len(probability), first : first + len(probability)] = probability
    picture = square[place_in_square(width, height, side).inside]
    if picture.shape == (height, width):
        return picture
    size = (height, width)
    return functional.interpolate(picture[None, None], size, mode="bilinear", antialias=True)[0, 0]


def runs_of(mask: BoolArray) -> IntArray:
    """Lengths of the runs outside and inside by turns, row by row, the first one outside (it may be 0)."""
    flat = np.concatenate([[False], mask.ravel(), [not mask.ravel()[-1]]])
    return np.diff(np.flatnonzero(flat[1:] != flat[:-1]), prepend=0)


@dataclass
class OwnSize:
    """What is drawn on images, at the size of what should be."""

    images: ImageSet
    kind: Target
    threshold: float
    _found: dict[int, tuple[IntArray, IntArray, IntArray]] = field(default_factory=dict)

    def add(self, rows: IntArray, logits: Tensor) -> None:
        """Judge what was drawn on some images (b,), logits (b, s, s)."""
        side = self.images.pixels.shape[1]
        for row, probability in zip(rows.tolist(), logits.float().sigmoid().cpu(), strict=True):
            truth = whole_target(self.images, row, self.kind)
            drawn = enlarge(probability, side, *truth.shape).numpy() > self.threshold
            counts = np.array([(drawn & truth).sum(), drawn.sum(), truth.sum()])
            self._found[row] = counts, np.array(drawn.shape), runs_of(drawn)

    def arrays(self) -> dict[str, Array]:
        """Pixels (n,) in both masks, in the drawn and in the true one, and the drawn masks, to be kept."""
        found = [self._found[row] for row in range(len(self.images))]
        counts, sizes, runs = ([each[part] for each in found] for part in range(3))
        columns = {f"own_{name}": np.stack(counts)[:, place] for place, name in enumerate(COUNTS)}
        return columns | {
            "mask_sizes": np.array(sizes, dtype=np.int32),
            "mask_runs": np.concatenate(runs).astype(np.int32),
            "mask_run_counts": np.array([len(each) for each in runs], dtype=np.int32),
        }
