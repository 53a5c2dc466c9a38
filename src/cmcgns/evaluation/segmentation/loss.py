"""10 · focal loss - log Dice.

Focal loss: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, equation 4 (without class weights).
Everything is summed image by image first, so that validation of any number of images is one "batch".
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from cmcgns.evaluation.segmentation.settings import SegmentationSettings

SMOOTH = 1.0  # pixels added to both sides of the fraction: an empty batch that is left empty has a Dice of 1


def focal_per_image(logits: Tensor, masks: Tensor, gamma: float) -> Tensor:
    """Mean over the pixels of (1 - p)^gamma · -log p, with p the probability of what is true.

    Args:
        logits: (B, H, W).
        masks: (B, H, W) Boolean.
        gamma: 0 gives the binary cross-entropy.

    Returns:
        (B,).
    """
    agreement = torch.where(masks, logits, -logits)
    loss = functional.softplus(-agreement)
    if gamma:
        loss = loss * torch.exp(gamma * functional.logsigmoid(-agreement))
    return loss.flatten(1).mean(1)


def soft_overlap(logits: Tensor, masks: Tensor) -> Tensor:
    """Sums of probabilities inside the mask, of all probabilities, and of pixels of the mask. (B, H, W) -> (B, 3)."""
    probability, inside = logits.sigmoid().flatten(1), masks.flatten(1).to(logits.dtype)
    return torch.stack([(probability * inside).sum(1), probability.sum(1), inside.sum(1)], dim=1)


def mixed_loss(focal: Tensor, overlap: Tensor, settings: SegmentationSettings) -> Tensor:
    """Weighted focal loss minus the logarithm of Dice.

    Args:
        focal: (B,) of :func:`focal_per_image`.
        overlap: (B, 3) of :func:`soft_overlap`.
        settings: `focal_weight` and `dice_over`.

    Returns:
        A number.
    """
    if settings.dice_over == "batch":
        overlap = overlap.sum(0, keepdim=True)
    dice = (2 * overlap[:, 0] + SMOOTH) / (overlap[:, 1] + overlap[:, 2] + SMOOTH)
    return settings.focal_weight * focal.mean() - dice.log().mean()
