"""Fine-tuning: a copy of the encoder is trained together with a linear layer. The frozen encoder stays as it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax

from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.image_set import ImageSet
from cmcgns.evaluation.task_settings.base import LabelKind
from cmcgns.evaluation.task_settings.learned import FinetuneSettings
from cmcgns.evaluation.tasks.linear.probe import log_odds
from cmcgns.evaluation.tasks.train_head import Head, even_batches
from cmcgns.metrics.ranking import FloatArray, IntArray


class Classifier(nn.Module):
    """An encoder and a linear layer on its pooled features."""

    def __init__(self, encoder: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, C)."""
        logits: Tensor = self.head(self.encoder(images)[0])
        return logits


class FinetuneHead(Head[IntArray]):
    """A copy of the encoder under a linear layer; the frozen encoder stays as it is."""

    def __init__(
        self,
        encoder: FrozenEncoder,
        data: TaskData,
        rows: IntArray,
        outcome: LabelKind,
        settings: FinetuneSettings,
        seed: int,
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = Classifier(encoder.trainable_copy(), encoder.width, len(data.label_names)).to(encoder.device)
        groups = layer_groups(model, settings)
        optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        super().__init__(model, optimizer, f"settings.finetuning.learning_rate than {settings.learning_rate:g}")
        self.encoder, self.data, self.rows, self.outcome = encoder, data, rows, outcome
        self.size, self.seed = settings.batch_size, seed

    def batches(self, epoch: int) -> list[IntArray]:
        """Rows of a batch each."""
        return even_batches(self.rows, self.size, self.seed, epoch)

    def loss(self, batch: IntArray) -> Tensor | None:
        """Mean cross-entropy over the labels that are known; None where there is none."""
        train = self.data.train
        labels = torch.from_numpy(train.labels[batch]).float().to(self.encoder.device)
        if labels.isnan().all():
            return None
        return self._cross_entropy(self.model(self.encoder.tensors(np.asarray(train.pixels[batch]))), labels)

    def validate(self) -> float:
        """Mean cross-entropy over all known labels."""
        val = self.data.val
        return float(self._cross_entropy(self._outputs(val), torch.from_numpy(val.labels).float()))

    def logits(self, images: ImageSet) -> FloatArray:
        """Log-odds (n, C) of each class."""
        with torch.no_grad():
            return log_odds(self._outputs(images).double().numpy(), self.outcome)

    def _outputs(self, images: ImageSet) -> Tensor:
        starts = range(0, len(images), self.size)
        pixels = (np.asarray(images.pixels[start : start + self.size]) for start in starts)
        return torch.cat([self.model(self.encoder.tensors(part)).cpu() for part in pixels])

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.outcome == "multiclass":
            return -(log_softmax(logits, 1) * labels).sum(1).mean()
        known = ~labels.isnan()
        return binary_cross_entropy_with_logits(logits[known], labels[known])


def layer_groups(model: Classifier, settings: FinetuneSettings) -> list[dict[str, Any]]:
    """Parameters by depth, each group with its learning rate; the earlier a layer, the less it moves.

    Clark et al., ELECTRA, ICLR 2020, appendix B; Bao et al., BEiT, ICLR 2022. What comes before the first stage or
    block has the lowest rate, what comes after the last one the encoder's own.
    """
    body: Any = model.encoder.body
    depths = [_depth(name) for name, _ in body.named_parameters()]
    stages = sorted({depth for depth in depths if depth is not None})
    groups: dict[int, list[nn.Parameter]] = {}
    seen_stage = False
    for (_, parameter), depth in zip(body.named_parameters(), depths, strict=True):
        seen_stage = seen_stage or depth is not None
        distance = len(stages) - stages.index(depth) - 1 if depth is not None else (0 if seen_stage else len(stages))
        if parameter.requires_grad:
            groups.setdefault(distance, []).append(parameter)
    found: list[dict[str, Any]] = [
        {"params": parameters, "lr": settings.learning_rate * settings.layer_decay**distance}
        for distance, parameters in sorted(groups.items())
    ]
    return [*found, {"params": list(model.head.parameters()), "lr": settings.head_learning_rate}]


def _depth(name: str) -> int | None:
    """Number of the stage (ResNet, ConvNeXt, Swin) or block (transformer) of a parameter; None outside of them."""
    first, _, rest = name.partition(".")
    if first.startswith("layer") and first[5:].isdigit():
        return int(first[5:])
    number = rest.partition(".")[0]
    return int(number) if first in ("blocks", "stages", "layers") and number.isdigit() else None
