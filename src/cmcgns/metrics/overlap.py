"""Agreement of a map or a mask with the truth, picture by picture: Dice, IoU, pointing game, contrast-to-noise ratio.

Dice: Dice, Ecology 26:297-302, 1945. Of maps: a phrase may have several boxes, the inside is their union. Maps and
boxes lie in the encoder's square input, black borders included. All figures of maps but the raw overlap stay the same
when a map is scaled by a positive number or shifted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cmcgns.common.errors import UserError
from cmcgns.metrics.classes import POSITIVE, left_out_classes, means_and_classes
from cmcgns.metrics.measure import Array, Measure, Measures, joined, row_means
from cmcgns.metrics.ranking import FloatArray

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)
_TIE = 1e-5  # of the largest absolute value: interpolating equal values leaves such differences
_LEAST_NOISE = 1e-3  # of a map's range


def box_masks(boxes: Sequence[npt.NDArray[np.float64]], size: int) -> Tensor:
    """Boxes -> (N, size, size) true inside any box of a phrase; empty where all boxes lie outside of the square.

    A pixel is inside if its centre is; a box between centres has the pixel that its own centre lies in.

    Args:
        boxes: for each phrase (k, 4) x0, y0, x1, y1.
        size: side of the square.
    """
    owner = torch.from_numpy(np.repeat(np.arange(len(boxes)), [len(each) for each in boxes]))
    corners = torch.from_numpy(np.concatenate([each.reshape(-1, 4) for each in boxes]))
    centre = torch.arange(size, dtype=torch.float64) + 0.5
    along = []
    for axis in (0, 1):
        low, high = corners[:, axis, None], corners[:, axis + 2, None]
        middle = ((low + high) / 2).floor() + 0.5
        along.append(((centre >= low) & (centre < high)) | (centre == middle))
    inside = along[1][:, :, None] & along[0][:, None, :]
    counts = torch.zeros(len(boxes), size, size, dtype=torch.int32)
    return counts.index_add_(0, owner, inside.int()) > 0


def pointing_game(maps: Tensor, masks: Tensor) -> Tensor:
    """Whether the largest value lies inside (Zhang et al., IJCV 2018, without their margin of 15 pixels).

    Of several largest values (within rounding) the share inside counts, so a map without any contrast gets the share
    of the picture that the boxes cover: what a random point would get.

    Args:
        maps: (N, H, W).
        masks: (N, H, W) true inside.

    Returns:
        (N,) in [0, 1].
    """
    flat, inside = _flat(maps, masks)
    tie = _TIE * flat.abs().amax(1, keepdim=True)
    largest = flat >= flat.amax(1, keepdim=True) - tie
    return (largest & inside).sum(1) / largest.sum(1)


def contrast_to_noise(maps: Tensor, masks: Tensor) -> Tensor:
    """(mean inside - mean outside) / sqrt(variance inside + variance outside), with its sign.

    Boecking et al. (ECCV 2022, section 4.2) take the absolute value, which rewards a map that is dark inside; both
    are reported. The noise counts as at least a thousandth of the map's range, so that two flat levels have 1000
    instead of infinity; a map without any contrast has 0.

    Args:
        maps: (N, H, W).
        masks: (N, H, W) true inside.

    Returns:
        (N,); NaN where nothing is inside or nothing outside.
    """
    flat, inside = _flat(maps.double(), masks)
    means, variances = [], []
    for part in (inside, ~inside):
        count = part.sum(1)
        mean = (flat * part).sum(1) / count
        means.append(mean)
        variances.append((((flat - mean[:, None]) ** 2) * part).sum(1) / count)
    span = flat.amax(1) - flat.amin(1)
    noise = torch.maximum((variances[0] + variances[1]).sqrt(), _LEAST_NOISE * span)
    difference = means[0] - means[1]
    flat_map = span <= _TIE * flat.abs().amax(1)
    return torch.where(flat_map & ~difference.isnan(), torch.zeros_like(difference), difference / noise)


def mean_overlap(maps: Tensor, masks: Tensor, thresholds: Sequence[float] = THRESHOLDS, raw: bool = False) -> Tensor:
    """Intersection over union of the boxes with what lies above a threshold, mean over the thresholds.

    Args:
        maps: (N, H, W).
        masks: (N, H, W) true inside, each somewhere.
        thresholds: on the map, stretched to [0, 1]; a map without any contrast becomes 0, so nothing lies above.
        raw: the thresholds apply to the map as it is, as Boecking et al. (ECCV 2022) do with cosines. That compares
            only encoders whose cosines have one scale.

    Returns:
        (N,) in [0, 1].
    """
    flat, inside = _flat(maps, masks)
    if not raw:
        low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
        span = high - low
        has_contrast = span > _TIE * flat.abs().amax(1, keepdim=True)
        flat = torch.where(has_contrast, (flat - low) / span, torch.zeros_like(flat))
    overlaps = []
    for threshold in thresholds:
        above = flat > threshold
        overlaps.append((above & inside).sum(1) / (above | inside).sum(1))
    return torch.stack(overlaps).mean(0)


def _flat(maps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    if maps.shape != masks.shape or maps.ndim != 3:
        raise UserError(f"maps {tuple(maps.shape)} and masks {tuple(masks.shape)} must have one shape, (N, H, W)")
    if not torch.isfinite(maps).all():
        raise UserError("a map holds values that are not finite")
    return maps.flatten(1), masks.flatten(1)


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


def overlap_measures(
    intersection: npt.ArrayLike, predicted: npt.ArrayLike, truth: npt.ArrayLike, suffix: str = ""
) -> Measures:
    """Mean Dice and IoU of images with a mask (`…_positive`), and of all, where empty on empty is 1 (`…_all`).

    A mean over batches would depend on the batch size and a pooled Dice would hide small findings, so every image has
    figures of its own.

    Args: as of :func:`dice_and_iou`, and what the names of the figures end in.
    """
    dice, iou = dice_and_iou(intersection, predicted, truth)
    parts, drawn = [], np.asarray(truth) > 0
    for name, values in (("dice", dice), ("iou", iou)):
        positive = {Measure(f"{name}_positive{suffix}"): np.where(drawn, values, np.nan)}
        parts += [row_means(positive, "with a mask"), row_means({Measure(f"{name}_all{suffix}"): values})]
    return joined(parts)


def label_overlap_measures(arrays: Mapping[str, Array]) -> Measures:
    """Dice and IoU of images with a label, by label and their mean over labels, and the Dice of drawing everything.

    `dice_chance` is what a drawing that knows nothing gets at best: the whole square.

    Args:
        arrays: pixels (n, K) `intersection`, `predicted` and `truth`, and `pixels` of the whole square; `labels`
            (n, K) 1 where there is something to be drawn, else NaN; `label_names`, `counted`, `positives_alone`;
            optionally `left_out` (K,).

    Raises:
        UserError: more pixels in common than one of the masks has.
    """
    names, there = arrays["label_names"].tolist(), arrays["labels"] == 1
    counts = [arrays[name].ravel() for name in ("intersection", "predicted", "truth")]
    dice, iou = (np.where(there, each.reshape(there.shape), 0.0) for each in dice_and_iou(*counts))
    everything = np.where(there, 2 * arrays["truth"] / (arrays["truth"] + float(arrays["pixels"])), 0.0)

    def compute(drawn: npt.NDArray[np.generic]) -> list[FloatArray]:
        weights = np.asarray(drawn, dtype=np.float64)
        weight, totals = weights @ there, [weights @ table for table in (dice, iou, everything)]
        return [np.divide(each, weight, out=np.full_like(each, np.nan), where=weight > 0) for each in totals]

    metrics = ["dice", "iou", "dice_chance"]
    return means_and_classes(metrics, compute, arrays["labels"], names, left_out_classes(arrays), POSITIVE)
