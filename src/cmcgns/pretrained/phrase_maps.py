"""Maps of phrases over patches (:mod:`cmcgns.objectives.phrase_maps`), as pixels of the picture."""

from __future__ import annotations

import math

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from cmcgns.common.errors import UserError
from cmcgns.data.images.place import place_in_square
from cmcgns.pretrained.embed import Floats


def grid_side(patches: int) -> int:
    """h of P = h · h patches.

    Raises:
        UserError: P is no square number.
    """
    side = math.isqrt(patches)
    if side * side != patches:
        raise UserError(f"{patches} patches form no square grid")
    return side


def to_pixels(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, P) maps over a square grid, row-major -> (N, H, W), interpolated between the patches' centres.

    Raises:
        UserError: P is no square number.
    """
    side = grid_side(maps.shape[1])
    grid = maps.unflatten(1, (1, side, side))
    return F.interpolate(grid, size=size, mode="bilinear", align_corners=False)[:, 0]


def unpad(values: Tensor, width: int, height: int) -> Floats:
    """(P,) of the square that the encoder saw -> (height, width) of the picture inside it."""
    side = max(width, height)
    square = to_pixels(values[None], (side, side))[0].cpu().numpy()
    return np.ascontiguousarray(square[place_in_square(width, height, side).inside])
