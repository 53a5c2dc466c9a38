"""Arrays of every text with every patch of every image, made a part of the images at a time where they are large."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

MOST = 2**27
"""Texts × images × patches at a time: half a gigabyte an array."""


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
