"""Numerics that objectives share: float32, and every text with every patch of every image."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

NOTHING = -1e4
"""A logit that counts for nothing, finite so that a row without any competitor has a gradient of 0."""

MOST = 2**27
"""Texts × images × patches at a time: half a gigabyte an array."""


def full_precision(tensor: Tensor) -> torch.autocast:
    """No autocast on the tensor's device; attention and predictors run in whatever autocast chooses outside."""
    return torch.autocast(tensor.device.type, enabled=False)


def by_images(score: Callable[[Tensor], Tensor], patches: Tensor, texts: int) -> Tensor:
    """What `score` gives of all images; the parts of a large array are computed anew in the backward pass.

    Args:
        score: of (b, P, D) patches, a row an image; needs about b · P · `texts` numbers at a time.
        patches: (B, P, D).
        texts: sentences or words that look at every image.
    """
    images = max(1, MOST // max(1, patches.shape[1] * texts))
    if images >= len(patches):
        return score(patches)
    return torch.cat([checkpoint(score, part, use_reentrant=False) for part in patches.split(images)])


def products(patches: Tensor, texts: Tensor) -> Tensor:
    """(B, P, D) patches and (N, D) texts -> (B, P, N) `v_bp·t_n`."""
    found: Tensor = (patches.flatten(0, 1) @ texts.T).unflatten(0, patches.shape[:2])
    return found


def seen_cosines(weights: Tensor, values: Tensor, along: Tensor) -> Tensor:
    """Cosines of unit texts t_n with what they see, `Σ_p w_p v_bp`, of which no (N, B, D) array is needed.

    The numerator is a sum of known products, the squared length `wᵀ G w` with the Gram matrix G of the values of an
    image.

    Args:
        weights: (B, P, N) w.
        values: (B, P, D) v.
        along: (B, P, N) `w_p v_bp·t_n`.

    Returns:
        (B, N).
    """
    squared = (weights * (values @ values.transpose(1, 2) @ weights)).sum(1)
    return along.sum(1) * squared.clamp(min=1e-12).rsqrt()
