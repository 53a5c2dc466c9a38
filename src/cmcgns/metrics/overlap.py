"""Dice and IoU of single images, and their weighted means.

A mean over batches depends on the batch size and a pooled Dice hides small findings, so the figures of every image
are made from its own counts of pixels. Dice: Dice, Ecology 26:297-302, 1945.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cmcgns.common.errors import UserError
from cmcgns.metrics.measure import Measure, Measures
from cmcgns.metrics.ranking import FloatArray

_CHUNK_CELLS = 1 << 22  # resamples × images weighed at once: 32 MB
MEASURES = tuple(Measure(name) for name in ("dice_positive", "dice_all", "iou_positive", "iou_all"))


def dice_and_iou(
    intersection: npt.ArrayLike, predicted: npt.ArrayLike, truth: npt.ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Dice and IoU of every image; 1 where both masks are empty, 0 where only one is.

    Args:
        intersection: (n,) pixels inside both.
        predicted: (n,) pixels inside the prediction.
        truth: (n,) pixels inside the mask.

    Returns:
        (n,) each.

    Raises:
        UserError: shapes differ, or more pixels in common than one of the masks has.
    """
    both, first, second = (np.asarray(values, dtype=np.float64) for values in (intersection, predicted, truth))
    if both.ndim != 1 or not both.shape == first.shape == second.shape:
        raise UserError(f"pixel counts must all be (n,), not {both.shape}, {first.shape}, {second.shape}")
    wrong = (both < 0) | (both > np.minimum(first, second))
    if wrong.any():
        raise UserError(f"image {int(wrong.argmax())}: the intersection is larger than a mask, or negative")
    total = first + second
    empty = total == 0
    dice = np.divide(2 * both, total, out=np.ones_like(both), where=~empty)
    iou = np.divide(both, total - both, out=np.ones_like(both), where=~empty)
    return dice, iou


def overlap_measures(intersection: npt.ArrayLike, predicted: npt.ArrayLike, truth: npt.ArrayLike) -> Measures:
    """Mean Dice and IoU of images with a mask (`…_positive`), and of all, where empty on empty is 1 (`…_all`).

    Args: as of :func:`dice_and_iou`.
    """
    dice, iou = dice_and_iou(intersection, predicted, truth)
    positive = (np.asarray(truth) > 0).astype(np.float64)
    one = np.ones_like(positive)
    values = np.stack([dice * positive, dice, iou * positive, iou], axis=1)
    weights = np.stack([positive, one, positive, one], axis=1)
    table = np.concatenate([values, weights], axis=1)

    def compute(counts: npt.NDArray[np.generic]) -> FloatArray:
        """(R, n) -> (R, 4)."""
        sums = np.empty((len(counts), table.shape[1]))
        step = max(1, _CHUNK_CELLS // max(1, len(table)))
        for start in range(0, len(counts), step):
            sums[start : start + step] = counts[start : start + step].astype(np.float64) @ table
        total, weight = sums[:, :4], sums[:, 4:]
        return np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)

    return Measures(MEASURES, compute)
