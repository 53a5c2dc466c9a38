"""Turned and scaled training images, with their masks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cmcgns.data.images import Pixels
from cmcgns.evaluation.metrics import BoolArray, FloatArray
from cmcgns.evaluation.segmentation.settings import SegmentationSettings


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
