"""Training of a decoder: 10 · focal loss - log Dice, early stopping, going on after an interruption.

Focal loss: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, equation 4 (without class weights).
Everything is summed image by image first, so that validation of any number of images is one "batch".
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cmcgns.common.errors import UserError
from cmcgns.common.files import write_atomically
from cmcgns.evaluation.protocols.task_settings import SegmentationSettings
from cmcgns.evaluation.tasks.segmentation.maps import MapStore, Part
from cmcgns.evaluation.tasks.segmentation.sampling import batches, draw_changes, epoch_rows
from cmcgns.metrics.overlap import dice_and_iou
from cmcgns.metrics.ranking import IntArray

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


SAVE_SECONDS = 30.0  # between two checkpoints
Progress = Callable[[int, float], None]


@dataclass
class Course:
    """How far a training has come.

    Attributes:
        epoch: epochs done.
        best_epoch: from 1; 0 before the first.
        best_score: of validation, lower is better.
        seconds: spent, over all interruptions.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_score: float = float("inf")
    seconds: float = 0.0


@dataclass(frozen=True)
class Lesson:
    """What a decoder learns from.

    Attributes:
        store: of the encoder's maps.
        train: the training split.
        rows: row numbers of it that may be used.
        val: the validation split; all of it is used.
        settings: the choices.
        seed: of the order of images and of their changes.
        checkpoint: file for an unfinished training.
        key: says which training the file belongs to; another one's is not used.
    """

    store: MapStore
    train: Part
    rows: IntArray
    val: Part
    settings: SegmentationSettings
    seed: int
    checkpoint: Path
    key: str


@dataclass(frozen=True)
class Judged:
    """Sums of every image: (n,) focal loss, (n, 3) soft and (n, 3) thresholded overlap as of `soft_overlap`."""

    focal: Tensor
    soft: Tensor
    hard: Tensor


def judge(decoder: nn.Module, store: MapStore, part: Part, rows: IntArray, settings: SegmentationSettings) -> Judged:
    """Let a decoder draw on images of a split, in eval mode, without learning from them.

    Args:
        decoder: left in the mode it was in.
        store: of the encoder's maps.
        part: the split.
        rows: (n,) row numbers of it.
        settings: batch size, threshold and gamma.
    """
    limit = float(np.log(settings.threshold / (1 - settings.threshold)))
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    training = decoder.training
    decoder.eval()
    with torch.no_grad():
        for some in batches(rows, store.batch_size):
            maps, masks = store.serve(part, some)
            logits = decoder(maps)
            drawn = logits > limit
            hard = torch.stack([(drawn & masks).sum((1, 2)), drawn.sum((1, 2)), masks.sum((1, 2))], dim=1)
            focal = focal_per_image(logits, masks, settings.focal_gamma)
            found.append((focal.cpu(), soft_overlap(logits, masks).cpu(), hard.cpu()))
    decoder.train(training)
    return Judged(*(torch.cat(values) for values in zip(*found, strict=True)))


def fit(decoder: nn.Module, lesson: Lesson, progress: Progress) -> Course:
    """Train, and leave the decoder as it was after the epoch that was best in validation, in eval mode.

    Args:
        decoder: with the weights to start from.
        lesson: images and settings.
        progress: called after every epoch with the epochs done and the validation score.

    Raises:
        UserError: the loss is not finite.
    """
    settings = lesson.settings
    decoder.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    course, best = Course(), _copy(decoder)
    saved = _read(lesson)
    if saved is not None:
        decoder.load_state_dict(saved["decoder"])
        optimizer.load_state_dict(saved["optimizer"])
        course, best = Course(**saved["course"]), saved["best"]
    began = last = time.monotonic() - course.seconds
    while course.epoch < settings.epochs and course.epoch - course.best_epoch < settings.patience:
        _train_epoch(decoder, optimizer, lesson, course.epoch)
        score = _validate(decoder, lesson)
        course.epoch += 1
        if score < course.best_score:
            course.best_score, course.best_epoch, best = score, course.epoch, _copy(decoder)
        course.seconds = time.monotonic() - began
        progress(course.epoch, score)
        if time.monotonic() - last >= SAVE_SECONDS:
            _write(lesson, decoder, optimizer, course, best)
            last = time.monotonic()
    decoder.load_state_dict(best)
    decoder.eval()
    return course


def _train_epoch(decoder: nn.Module, optimizer: torch.optim.Optimizer, lesson: Lesson, epoch: int) -> None:
    settings, positive = lesson.settings, lesson.train.targets.positive
    at_least = (settings.shortest_epoch - 1) * settings.batch_size + 1
    rows = epoch_rows(lesson.rows, positive, settings.balance, lesson.seed, epoch, at_least)
    changes = draw_changes(len(rows), settings, lesson.seed, epoch) if settings.augment_share > 0 else None
    decoder.train()
    total = torch.zeros((), device=lesson.store.encoder.device)
    for shown in batches(np.arange(len(rows)), settings.batch_size):
        maps, masks = lesson.store.serve(lesson.train, rows[shown], None if changes is None else changes[shown])
        logits = decoder(maps)
        focal = focal_per_image(logits, masks, settings.focal_gamma)
        loss = mixed_loss(focal, soft_overlap(logits, masks), settings)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.detach()
    if not total.isfinite():
        raise UserError(
            f"segmentation: the training loss is {total.item()} in epoch {epoch + 1}; a lower "
            f"settings.learning_rate than {settings.learning_rate} may help"
        )


def _validate(decoder: nn.Module, lesson: Lesson) -> float:
    rows = np.arange(len(lesson.val.images))
    judged = judge(decoder, lesson.store, lesson.val, rows, lesson.settings)
    if lesson.settings.stop_on == "dice":
        return 1 - float(dice_and_iou(*judged.hard.numpy().T)[0].mean())
    score = mixed_loss(judged.focal, judged.soft, lesson.settings).item()
    if not np.isfinite(score):
        raise UserError(f"segmentation: the validation loss is {score}; try a lower settings.learning_rate")
    return score


def _copy(decoder: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in decoder.state_dict().items()}


def _write(
    lesson: Lesson, decoder: nn.Module, optimizer: torch.optim.Optimizer, course: Course, best: dict[str, Tensor]
) -> None:
    content = {
        "key": lesson.key,
        "decoder": decoder.state_dict(),
        "optimizer": optimizer.state_dict(),
        "course": asdict(course),
        "best": best,
    }
    write_atomically(lesson.checkpoint, lambda temporary: torch.save(content, temporary))


def _read(lesson: Lesson) -> dict[str, Any] | None:
    """What an interrupted training of the same key left; None: nothing, or a file that is no such checkpoint."""
    if not lesson.checkpoint.is_file():
        return None
    try:
        device = lesson.store.encoder.device
        content: dict[str, Any] = torch.load(lesson.checkpoint, map_location=device, weights_only=True)
    except Exception:  # any damaged file: the training can be done again
        return None
    return content if isinstance(content, dict) and content.get("key") == lesson.key else None
