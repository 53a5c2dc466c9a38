"""Which images an epoch shows, in which order, turned and scaled with their masks."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cmcgns.data.images.place import Pixels
from cmcgns.evaluation.protocols.task_settings import SegmentationSettings
from cmcgns.metrics.ranking import BoolArray, FloatArray, IntArray

Balance = Literal["each_epoch", "once", "none"]


def epoch_rows(
    rows: IntArray, positive: BoolArray, balance: Balance, seed: int, epoch: int, at_least: int = 1
) -> IntArray:
    """Rows of one epoch in random order.

    Balanced: all images with a mask and as many without, or all of those where there are fewer. With 10 images an
    epoch would be a single step: early stopping would end before the decoder's batch statistics have settled, so
    passes over few images are repeated until the epoch is long enough.

    Args:
        rows: (m,) what may be learned from.
        positive: (n,) by row number, whether it has a mask.
        balance: `once` shows the same images without a mask in every pass, `each_epoch` others each time.
        seed: of the draw.
        epoch: from 0; equal seeds and epochs give equal rows.
        at_least: how many rows an epoch has; reached by whole passes.

    Returns:
        (k,) row numbers.
    """
    size = len(rows)
    if balance != "none":
        having = int(positive[rows].sum())
        size = having + min(having, len(rows) - having)
    passes = -(-at_least // size)
    return np.concatenate([_one_pass(rows, positive, balance, seed, epoch * passes + turn) for turn in range(passes)])


def _one_pass(rows: IntArray, positive: BoolArray, balance: Balance, seed: int, number: int) -> IntArray:
    if balance != "none":
        having, lacking = rows[positive[rows]], rows[~positive[rows]]
        drawn = np.random.default_rng([seed, 1, number if balance == "each_epoch" else 0]).permutation(lacking)
        rows = np.concatenate([having, drawn[: len(having)]])
    return np.random.default_rng([seed, 2, number]).permutation(rows)


def batches(rows: IntArray, batch_size: int) -> list[IntArray]:
    """As few batches as possible, of sizes that differ by at most one: no tiny batch upsets batch statistics."""
    return np.array_split(rows, max(1, -(-len(rows) // batch_size)))


def draw_changes(images: int, settings: SegmentationSettings, seed: int, epoch: int) -> FloatArray:
    """(n, 2) angle in radians and factor of scale of all n images that an epoch shows; 0 and 1: left alone."""
    draws = np.random.default_rng([seed, 3, epoch]).random((images, 3))
    changed = draws[:, 0] < settings.augment_share
    angle = np.radians(settings.augment_degrees) * (2 * draws[:, 1] - 1)
    scale = 1 + settings.augment_scale * (2 * draws[:, 2] - 1)
    return np.stack([np.where(changed, angle, 0.0), np.where(changed, scale, 1.0)], axis=1)


def turn_and_scale(pixels: Pixels, masks: BoolArray, changes: FloatArray) -> tuple[Pixels, BoolArray]:
    """Turn and scale squares about their centres; bilinear, black outside. Unchanged images come back as they are.

    Args:
        pixels: (b, s, s) uint8.
        masks: (b, s, s).
        changes: (b, 2) of :func:`draw_changes`.

    Returns:
        Both, changed alike; a mask's pixel is inside where at least half of its value is.
    """
    moved = np.flatnonzero((changes != [0.0, 1.0]).any(axis=1))
    if not len(moved):
        return pixels, masks
    angle, scale = torch.from_numpy(changes[moved]).float().unbind(1)
    cosine, sine, zero = angle.cos() / scale, angle.sin() / scale, torch.zeros_like(angle)
    matrix = torch.stack([cosine, -sine, zero, sine, cosine, zero], dim=1).view(-1, 2, 3)
    both = torch.stack([_floats(pixels[moved]), _floats(masks[moved]) * 255], dim=1)
    grid = functional.affine_grid(matrix, list(both.shape), align_corners=False)
    found = functional.grid_sample(both, grid, align_corners=False).numpy()
    pixels, masks = pixels.copy(), masks.copy()
    pixels[moved] = found[:, 0].round().astype(np.uint8)
    masks[moved] = found[:, 1] >= 127.5
    return pixels, masks


def _floats(values: Pixels | BoolArray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).float()
