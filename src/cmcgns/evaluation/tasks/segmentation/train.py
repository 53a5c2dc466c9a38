"""Training of a decoder: 10 · focal loss - log Dice, and which images an epoch shows, turned and scaled or not.

Focal loss: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, equation 4 (without class weights).
Everything is summed image by image first, so that validation of any number of images is one "batch".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cmcgns.evaluation.task_settings.learned import SegmentationSettings
from cmcgns.evaluation.tasks.segmentation.decoders import MapStore, MaskSplit
from cmcgns.evaluation.tasks.train_head import Head
from cmcgns.metrics.overlap import dice_and_iou
from cmcgns.metrics.ranking import BoolArray, FloatArray, IntArray

Balance = Literal["each_epoch", "once", "none"]
_Batch = tuple[IntArray, FloatArray | None]

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


def equal_batches(rows: IntArray, batch_size: int) -> list[IntArray]:
    """As few batches as possible, of sizes that differ by at most one: no tiny batch upsets batch statistics."""
    return np.array_split(rows, max(1, -(-len(rows) // batch_size)))


def draw_changes(images: int, settings: SegmentationSettings, seed: int, epoch: int) -> FloatArray:
    """(n, 2) angle in radians and factor of scale of all n images that an epoch shows; 0 and 1: left alone."""
    draws = np.random.default_rng([seed, 3, epoch]).random((images, 3))
    changed = draws[:, 0] < settings.augment_share
    angle = np.radians(settings.augment_degrees) * (2 * draws[:, 1] - 1)
    scale = 1 + settings.augment_scale * (2 * draws[:, 2] - 1)
    return np.stack([np.where(changed, angle, 0.0), np.where(changed, scale, 1.0)], axis=1)


@dataclass(frozen=True)
class OverlapSums:
    """Sums of every image: (n,) focal loss, (n, 3) soft and (n, 3) thresholded overlap as of `soft_overlap`."""

    focal: Tensor
    soft: Tensor
    hard: Tensor


def measure_overlap(
    decoder: nn.Module,
    store: MapStore,
    split: MaskSplit,
    rows: IntArray,
    settings: SegmentationSettings,
    take: Callable[[IntArray, Tensor], None] = lambda _rows, _logits: None,
) -> OverlapSums:
    """Let a decoder draw on images of a split, in eval mode, without learning from them.

    Args:
        decoder: left in the mode it was in.
        store: of the encoder's maps.
        split: of the images.
        rows: (n,) row numbers of it.
        settings: batch size, threshold and gamma.
        take: is given rows (b,) and what was drawn on them, logits (b, s, s).
    """
    limit = float(np.log(settings.threshold / (1 - settings.threshold)))
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    training = decoder.training
    decoder.eval()
    with torch.no_grad():
        for some in equal_batches(rows, store.batch_size):
            maps, masks = store.read(split, some)
            logits = decoder(maps)
            take(some, logits)
            drawn = logits > limit
            hard = torch.stack([(drawn & masks).sum((1, 2)), drawn.sum((1, 2)), masks.sum((1, 2))], dim=1)
            focal = focal_per_image(logits, masks, settings.focal_gamma)
            found.append((focal.cpu(), soft_overlap(logits, masks).cpu(), hard.cpu()))
    decoder.train(training)
    return OverlapSums(*(torch.cat(values) for values in zip(*found, strict=True)))


class DecoderHead(Head[_Batch]):
    """A decoder over maps of the frozen encoder."""

    def __init__(
        self,
        decoder: nn.Module,
        store: MapStore,
        train: MaskSplit,
        rows: IntArray,
        val: MaskSplit,
        settings: SegmentationSettings,
        seed: int,
    ) -> None:
        decoder.to(memory_format=torch.channels_last)
        rate, decay = settings.learning_rate, settings.weight_decay
        optimizer = torch.optim.AdamW(decoder.parameters(), lr=rate, weight_decay=decay)
        super().__init__(decoder, optimizer, f"settings.learning_rate than {rate:g}")
        self.store, self.train, self.rows, self.val = store, train, rows, val
        self.settings, self.seed = settings, seed

    def batches(self, epoch: int) -> list[_Batch]:
        """Rows, and the changes of their images if there are any."""
        settings = self.settings
        at_least = (settings.shortest_epoch - 1) * settings.batch_size + 1
        rows = epoch_rows(self.rows, self.train.targets.positive, settings.balance, self.seed, epoch, at_least)
        changes = draw_changes(len(rows), settings, self.seed, epoch) if settings.augment_share > 0 else None
        parts = equal_batches(np.arange(len(rows)), settings.batch_size)
        return [(rows[part], None if changes is None else changes[part]) for part in parts]

    def loss(self, batch: _Batch) -> Tensor:
        """Weighted focal loss minus the logarithm of Dice."""
        maps, masks = self.store.read(self.train, *batch)
        logits = self.model(maps)
        focal = focal_per_image(logits, masks, self.settings.focal_gamma)
        return mixed_loss(focal, soft_overlap(logits, masks), self.settings)

    def validate(self) -> float:
        """The loss over all pixels of validation, or what the mean Dice lacks of 1."""
        found = measure_overlap(self.model, self.store, self.val, np.arange(len(self.val.images)), self.settings)
        if self.settings.stop_on == "dice":
            return 1 - float(dice_and_iou(*found.hard.numpy().T)[0].mean())
        return mixed_loss(found.focal, found.soft, self.settings).item()
