"""The linear probe of published tables: a linear layer trained by AdamW until validation stops it.

MGCA (Wang et al., NeurIPS 2022, section 4.2 and its public program): batches of 48, learning rate 5e-4, weight decay
1e-6, early stop after 10 epochs without a lower validation loss, weights of the best epoch. Here the features are
computed once, so that an epoch over 190,000 images takes about a second; augmentation of the training images, which
would change them in every epoch, is therefore left out. Every row counts, also those of the last batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax

from cmcgns.common.errors import UserError
from cmcgns.common.files import write_atomically
from cmcgns.evaluation.protocols.task_settings import LegacySettings, Outcome
from cmcgns.evaluation.tasks.linear.probe import one_against_rest
from cmcgns.metrics.ranking import FloatArray, IntArray

_GATHERED = 100  # batches brought into order at once, so that a batch is a stretch of memory
_SAVE_AFTER = 20.0  # seconds
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class LegacyProbe:
    """A trained layer.

    Attributes:
        weight: (C, F).
        bias: (C,).
        outcome: whether classes exclude each other.
        epochs: trained.
        best_epoch: whose weights these are, from 1.
        val_loss: of that epoch.
    """

    weight: FloatArray
    bias: FloatArray
    outcome: Outcome
    epochs: int
    best_epoch: int
    val_loss: float

    def logits(self, features: npt.NDArray[np.floating]) -> FloatArray:
        """Log-odds of each class, (n, F) -> (n, C)."""
        linear = np.asarray(features @ self.weight.T.astype(features.dtype) + self.bias, dtype=np.float64)
        return linear if self.outcome == "binary" else one_against_rest(linear)


@dataclass(frozen=True)
class Lesson:
    """What a layer learns from.

    Attributes:
        train: (N, F) features; may be memory-mapped.
        labels: (N, C) 1, 0 or NaN.
        rows: which rows of `train`.
        val: (v, F) features.
        val_labels: (v, C).
        outcome: whether classes exclude each other (cross-entropy over them) or not (one of each).
    """

    train: npt.NDArray[np.float32]
    labels: FloatArray
    rows: IntArray
    val: npt.NDArray[np.float32]
    val_labels: FloatArray
    outcome: Outcome = "binary"


@dataclass
class _State:
    """Everything that changes. Parameters are flat: weights (C, F), then biases (C,)."""

    parameters: Tensor
    first: Tensor
    second: Tensor
    best: Tensor
    steps: int = 0
    epoch: int = 0
    best_epoch: int = 0
    best_loss: float = math.inf


def train_probe(
    lesson: Lesson,
    seed: int,
    settings: LegacySettings,
    checkpoint: Path | None = None,
    key: str = "",
    progress: Callable[[int, float], None] = lambda _epoch, _loss: None,
) -> LegacyProbe:
    """Train one layer.

    Args:
        lesson: features and labels.
        seed: of the start and of the order of rows.
        settings: of the training.
        checkpoint: file to go on from after an interruption; removed by the caller.
        key: what the checkpoint must have been made with.
        progress: called with the epoch and its validation loss.

    Raises:
        UserError: the validation loss is not finite, or validation has no label.
    """
    classes, width = lesson.labels.shape[1], lesson.train.shape[1]
    if np.isnan(lesson.val_labels).all():
        raise UserError("no validation image has a label, so nothing can stop the training")
    state = _load(checkpoint, key) or _start(classes, width, seed)
    gradient, saved = torch.empty_like(state.parameters), time.monotonic()
    val, val_labels = torch.from_numpy(np.array(lesson.val)), torch.from_numpy(lesson.val_labels).float()
    while state.epoch < settings.epochs and state.epoch - state.best_epoch < settings.patience:
        for images, target, share in _batches(lesson, settings.batch_size, seed, state.epoch):
            _differentiate(state.parameters, images, target, share, lesson.outcome, gradient)
            _adamw(state, gradient, settings)
        state.epoch += 1
        loss = _loss(state.parameters, val, val_labels, lesson.outcome)
        if not math.isfinite(loss):
            raise UserError(f"the linear layer diverged in epoch {state.epoch}: lower settings.learning_rate")
        if loss < state.best_loss:
            state.best_loss, state.best_epoch, state.best = loss, state.epoch, state.parameters.clone()
        progress(state.epoch, loss)
        if checkpoint is not None and time.monotonic() - saved > _SAVE_AFTER:
            _save(checkpoint, key, state)
            saved = time.monotonic()
    weight, bias = (part.double().numpy() for part in _split(state.best, classes))
    return LegacyProbe(weight, bias, lesson.outcome, state.epoch, state.best_epoch, state.best_loss)


def _start(classes: int, width: int, seed: int) -> _State:
    """As PyTorch starts a linear layer."""
    bound = 1 / math.sqrt(width)
    generator = torch.Generator().manual_seed(seed)
    parameters = torch.empty(classes * (width + 1)).uniform_(-bound, bound, generator=generator)
    return _State(parameters, torch.zeros_like(parameters), torch.zeros_like(parameters), parameters.clone())


def _split(flat: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    return flat[:-classes].view(classes, -1), flat[-classes:]


def _batches(lesson: Lesson, size: int, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Features (b, F), labels (b, C), and each label's share of the batch's mean (b, C); 0 where it is missing."""
    order = lesson.rows[np.random.default_rng([seed, epoch]).permutation(len(lesson.rows))]
    for start in range(0, len(order), _GATHERED * size):
        rows = order[start : start + _GATHERED * size]
        images = torch.from_numpy(np.take(lesson.train, rows, axis=0))
        labels = torch.from_numpy(lesson.labels[rows]).float()
        known = ~labels.isnan()
        target = labels.nan_to_num()
        for batch in zip(images.split(size), target.split(size), known.split(size), strict=True):
            yield batch[0], batch[1], _share(batch[2], lesson.outcome)


def _share(known: Tensor, outcome: Outcome) -> Tensor:
    """Weights of the labels of a batch (b, C) in its mean; of classes that exclude each other, all or none count."""
    if outcome == "multiclass":
        known = known.all(1, keepdim=True).expand_as(known)
        return known / known[:, 0].sum().clamp(min=1)
    return known / known.sum().clamp(min=1)


def _differentiate(
    parameters: Tensor, images: Tensor, target: Tensor, share: Tensor, outcome: Outcome, gradient: Tensor
) -> None:
    """Gradient of the mean cross-entropy, into `gradient`."""
    classes = target.shape[1]
    (weight, bias), (of_weight, of_bias) = _split(parameters, classes), _split(gradient, classes)
    logits = torch.addmm(bias, images, weight.T)
    chance = logits.sigmoid_() if outcome == "binary" else logits.softmax(1)
    residual = chance.sub_(target).mul_(share)
    torch.mm(residual.T, images, out=of_weight)
    torch.sum(residual, 0, out=of_bias)


def _adamw(state: _State, gradient: Tensor, settings: LegacySettings) -> None:
    """One step of AdamW (Loshchilov and Hutter, ICLR 2019, algorithm 2, as PyTorch scales it), in place."""
    state.steps += 1
    scale1, scale2 = 1 - _BETA1**state.steps, 1 - _BETA2**state.steps
    state.parameters.mul_(1 - settings.learning_rate * settings.weight_decay)
    state.first.lerp_(gradient, 1 - _BETA1)
    state.second.mul_(_BETA2).addcmul_(gradient, gradient, value=1 - _BETA2)
    root = torch.sqrt(state.second, out=gradient).div_(math.sqrt(scale2)).add_(_EPSILON)
    state.parameters.addcdiv_(state.first, root, value=-settings.learning_rate / scale1)


def _loss(parameters: Tensor, images: Tensor, labels: Tensor, outcome: Outcome) -> float:
    """Mean cross-entropy over all labels, not over batches."""
    weight, bias = _split(parameters, labels.shape[1])
    logits, share, target = torch.addmm(bias, images, weight.T), _share(~labels.isnan(), outcome), labels.nan_to_num()
    if outcome == "multiclass":
        return float(-(log_softmax(logits, 1) * target * share).sum())
    return float((binary_cross_entropy_with_logits(logits, target, reduction="none") * share).sum())


def _save(file: Path, key: str, state: _State) -> None:
    write_atomically(file, lambda path: torch.save({"key": key} | vars(state), path), durable=False)


def _load(file: Path | None, key: str) -> _State | None:
    """The state that was saved with the same key, if there is one."""
    if file is None or not file.is_file():
        return None
    content: dict[str, Any] = torch.load(file, weights_only=True)
    return _State(**content) if content.pop("key") == key else None
