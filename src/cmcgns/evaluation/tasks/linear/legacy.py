"""The linear probe of published tables: a linear layer trained by AdamW until validation stops it.

MGCA (Wang et al., NeurIPS 2022, section 4.2 and its public program): batches of 48, learning rate 5e-4, weight decay
1e-6, early stop after 10 epochs without a lower validation loss, weights of the best epoch. Here the features are
computed once, so that an epoch over 190,000 images takes about a second; augmentation of the training images, which
would change them in every epoch, is therefore left out. Every row counts, also those of the last batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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


class LayerHead(Head[_Batch]):
    """The published probe; its layer starts as PyTorch's, from the seed."""

    def __init__(self, data: LayerData, settings: LegacySettings, seed: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layer = nn.Linear(data.train.shape[1], data.labels.shape[1])
        rate, decay = settings.learning_rate, settings.weight_decay
        optimizer = torch.optim.AdamW(layer.parameters(), lr=rate, weight_decay=decay, fused=True)
        super().__init__(layer, optimizer, f"settings.adamw.learning_rate than {rate:g}")
        self.layer, self.data, self.settings, self.seed = layer, data, settings, seed
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

    def validate(self) -> float:
        """Mean cross-entropy over all labels, not over batches."""
        share = _share(~self.val_labels.isnan(), self.data.outcome)
        return float(self.loss((self.val, self.val_labels.nan_to_num(), share)))

    def logits(self, features: npt.NDArray[np.floating]) -> FloatArray:
        """Log-odds of each class, (n, F) -> (n, C)."""
        weight, bias = (part.detach().double().numpy() for part in (self.layer.weight, self.layer.bias))
        linear = np.asarray(features @ weight.T.astype(features.dtype) + bias, dtype=np.float64)
        return log_odds(linear, self.data.outcome)


def _share(known: Tensor, outcome: LabelKind) -> Tensor:
    """Weights of the labels of a batch (b, C) in its mean; of classes that exclude each other, all or none count."""
    if outcome == "multiclass":
        known = known.all(1, keepdim=True).expand_as(known)
        return known / known[:, 0].sum().clamp(min=1)
    return known / known.sum().clamp(min=1)
