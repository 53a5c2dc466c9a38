"""The linear probe of published tables: a linear layer trained by AdamW until validation stops it.

MGCA (Wang et al., NeurIPS 2022, section 4.2 and its public program): batches of 48, learning rate 5e-4, weight decay
1e-6, early stop after 10 epochs without a lower validation loss, weights of the best epoch. Here the features are
computed once, so that an epoch over 190,000 images takes about a second; augmentation of the training images, which
would change them in every epoch, is therefore left out. Every row counts, also those of the last batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax

from cmcgns.evaluation.features import Floats
from cmcgns.evaluation.task_settings.base import LabelKind
from cmcgns.evaluation.task_settings.learned import LegacySettings
from cmcgns.evaluation.tasks.linear.probe import log_odds
from cmcgns.evaluation.tasks.train_head import Head, shuffled
from cmcgns.metrics.ranking import FloatArray, IntArray

_GATHERED = 100  # batches brought into order at once, so that a batch is a stretch of memory
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8
_Batch = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class LayerData:
    """What a layer learns from and is chosen by.

    Attributes:
        train: (N, F) features; may be memory-mapped.
        labels: (N, C) 1, 0 or NaN.
        rows: which rows of `train`.
        val: (v, F) features.
        val_labels: (v, C).
        outcome: whether classes exclude each other (cross-entropy over them) or not (one of each).
    """

    train: Floats
    labels: FloatArray
    rows: IntArray
    val: Floats
    val_labels: FloatArray
    outcome: LabelKind = "binary"


class _Layer(nn.Module):
    """A linear layer whose parameters are one flat tensor: weights (C, F), then biases (C,); starts as PyTorch's."""

    def __init__(self, classes: int, width: int, seed: int) -> None:
        super().__init__()
        bound, generator = 1 / math.sqrt(width), torch.Generator().manual_seed(seed)
        flat = torch.empty(classes * (width + 1)).uniform_(-bound, bound, generator=generator)
        self.classes = classes
        self.flat = nn.Parameter(flat, requires_grad=False)

    def split(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and biases of the parameters or of their gradient."""
        return flat[: -self.classes].view(self.classes, -1), flat[-self.classes :]

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) -> (B, C)."""
        weight, bias = self.split(self.flat)
        return torch.addmm(bias, features, weight.T)


class _AdamW:
    """AdamW (Loshchilov and Hutter, ICLR 2019, algorithm 2, as PyTorch scales it), in place on a flat tensor."""

    def __init__(self, parameters: Tensor, settings: LegacySettings) -> None:
        self.parameters, self.settings, self.steps = parameters, settings, 0
        self.first, self.second = torch.zeros_like(parameters), torch.zeros_like(parameters)

    def step(self, gradient: Tensor) -> None:
        """One step; the gradient is overwritten."""
        self.steps += 1
        scale1, scale2 = 1 - _BETA1**self.steps, 1 - _BETA2**self.steps
        self.parameters.mul_(1 - self.settings.learning_rate * self.settings.weight_decay)
        self.first.lerp_(gradient, 1 - _BETA1)
        self.second.mul_(_BETA2).addcmul_(gradient, gradient, value=1 - _BETA2)
        root = torch.sqrt(self.second, out=gradient).div_(math.sqrt(scale2)).add_(_EPSILON)
        self.parameters.addcdiv_(self.first, root, value=-self.settings.learning_rate / scale1)

    def state_dict(self) -> dict[str, Any]:
        """Both moments and how many steps they know."""
        return {"first": self.first, "second": self.second, "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        self.first, self.second, self.steps = (state_dict[name] for name in ("first", "second", "steps"))


class LayerHead(Head[_Batch]):
    """The published probe, its gradient written out: three times as fast as PyTorch's own layer and optimiser."""

    def __init__(self, data: LayerData, settings: LegacySettings, seed: int) -> None:
        self.layer = _Layer(data.labels.shape[1], data.train.shape[1], seed)
        self.flat = self.layer.flat.detach()
        self.adamw = _AdamW(self.flat, settings)
        super().__init__(self.layer, self.adamw, f"settings.adamw.learning_rate than {settings.learning_rate:g}")
        self.data, self.settings, self.seed = data, settings, seed
        self.gradient = torch.empty_like(self.flat)
        self.val, self.val_labels = torch.from_numpy(np.array(data.val)), torch.from_numpy(data.val_labels).float()

    def batches(self, epoch: int) -> Iterator[_Batch]:
        """Features (b, F), labels (b, C), each label's share of the mean (b, C), 0 where it is missing."""
        data, size = self.data, self.settings.batch_size
        order = shuffled(data.rows, self.seed, epoch)
        for start in range(0, len(order), _GATHERED * size):
            rows = order[start : start + _GATHERED * size]
            images = torch.from_numpy(np.take(data.train, rows, axis=0))
            labels = torch.from_numpy(data.labels[rows]).float()
            parts = (images, labels.nan_to_num(), ~labels.isnan())
            for image, target, known in zip(*(part.split(size) for part in parts), strict=True):
                yield image, target, _share(known, data.outcome)

    def loss(self, batch: _Batch) -> Tensor:
        """Mean cross-entropy."""
        images, target, share = batch
        logits = self.layer(images)
        if self.data.outcome == "multiclass":
            return -(log_softmax(logits, 1) * target * share).sum()
        return (binary_cross_entropy_with_logits(logits, target, reduction="none") * share).sum()

    def step(self, batch: _Batch) -> None:
        """A step without the loss, which nobody looks at."""
        images, target, share = batch
        logits = self.layer(images)
        chance = logits.sigmoid_() if self.data.outcome == "binary" else logits.softmax(1)
        residual = chance.sub_(target).mul_(share)
        of_weight, of_bias = self.layer.split(self.gradient)
        torch.mm(residual.T, images, out=of_weight)
        torch.sum(residual, 0, out=of_bias)
        self.adamw.step(self.gradient)

    def validate(self) -> float:
        """Mean cross-entropy over all labels, not over batches."""
        share = _share(~self.val_labels.isnan(), self.data.outcome)
        return float(self.loss((self.val, self.val_labels.nan_to_num(), share)))

    def logits(self, features: npt.NDArray[np.floating]) -> FloatArray:
        """Log-odds of each class, (n, F) -> (n, C)."""
        weight, bias = (part.double().numpy() for part in self.layer.split(self.flat))
        linear = np.asarray(features @ weight.T.astype(features.dtype) + bias, dtype=np.float64)
        return log_odds(linear, self.data.outcome)


def _share(known: Tensor, outcome: LabelKind) -> Tensor:
    """Weights of the labels of a batch (b, C) in its mean; of classes that exclude each other, all or none count."""
    if outcome == "multiclass":
        known = known.all(1, keepdim=True).expand_as(known)
        return known / known[:, 0].sum().clamp(min=1)
    return known / known.sum().clamp(min=1)
