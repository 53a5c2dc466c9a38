"""Learned position embeddings of patch tokens, brought to another grid."""

import math
from collections.abc import Mapping

from timm.layers import resample_abs_pos_embed
from torch import Tensor

_NAMES = ("pos_embed", "positional_embedding", "position")


def interpolate_positions(
    tensors: dict[str, Tensor], wanted: Mapping[str, Tensor], grid: tuple[int, int]
) -> dict[str, str]:
    """Interpolate, in place, the position embeddings of square grids whose number of tokens differs (bicubic).

    Rows before those of the grid (a class token's, the mean token's) stay as they are.

    Args:
        tensors: a state dict; position embeddings are (…, prefix + P, C).
        wanted: the state dict of the module that is to be filled.
        grid: (h, w) of its patch tokens.

    Returns:
        `7 × 7 to 14 × 14` for every name that was changed.
    """
    changed = {}
    for name in sorted(tensors.keys() & wanted.keys()):
        given, shape = tensors[name], wanted[name].shape
        prefix = shape[-2] - grid[0] * grid[1] if len(shape) >= 2 else -1
        if name.rpartition(".")[2] not in _NAMES or prefix < 0 or given.shape == shape:
            continue
        side = math.isqrt(max(given.shape[-2] - prefix, 0))
        same_elsewhere = given.shape[:-2] + given.shape[-1:] == shape[:-2] + shape[-1:]
        if not same_elsewhere or side * side + prefix != given.shape[-2]:
            continue  # no square grid: whoever loads the tensors refuses the shape
        rows = given.reshape(1, *given.shape[-2:])
        tensors[name] = resample_abs_pos_embed(rows, list(grid), [side, side], prefix).reshape(shape)
        changed[name] = f"{side} × {side} to {grid[0]} × {grid[1]}"
    return changed
