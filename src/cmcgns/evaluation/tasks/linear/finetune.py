"""Fine-tuning: a copy of the encoder is trained together with a linear layer. The frozen encoder stays as it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax

from cmcgns.common.errors import UserError
from cmcgns.common.files import write_atomically
from cmcgns.evaluation.contract import Job
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.image_set import ImageSet
from cmcgns.evaluation.protocols import Cell
from cmcgns.evaluation.protocols.task_settings import FinetuneSettings, Outcome
from cmcgns.evaluation.tasks.linear.probe import one_against_rest
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


@dataclass
class _Course:
    """How far a training is."""

    epoch: int = 0
    best_epoch: int = 0
    best_loss: float = math.inf
    best: dict[str, Tensor] = field(default_factory=dict)

    def count(self, loss: float, model: nn.Module) -> None:
        """Take in the validation loss of another epoch; the weights of the best one are kept."""
        self.epoch += 1
        if loss < self.best_loss:
            self.best_loss, self.best_epoch = loss, self.epoch
            self.best = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def finetune(
    job: Job,
    rows: IntArray,
    outcome: Outcome,
    settings: FinetuneSettings,
    cell: Cell,
    checkpoint: Path,
    key: str,
    progress: Callable[[int, float], None],
) -> tuple[FloatArray, dict[str, Any]]:
    """Train, and say of every test image how likely each class is.

    Args:
        job: encoder and images.
        rows: training rows.
        outcome: whether classes exclude each other.
        settings: of the training.
        cell: its seed decides the start of the layer and the order of the images.
        checkpoint: written after every epoch; a training with the same key goes on from it.
        key: of everything that decides the result.
        progress: called with the epoch and its validation loss.

    Returns:
        Log-odds (n, C), and facts.

    Raises:
        UserError: the validation loss is not finite, or validation has no label.
    """
    data, seed = job.data, cell.seed or 0
    if np.isnan(data.val.labels).all():
        raise UserError("no validation image has a label, so nothing can stop the training")
    model = _new_classifier(job, seed)
    groups = layer_groups(model, settings)
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    course = _load(checkpoint, key, model, optimizer)
    while course.epoch < settings.epochs and course.epoch - course.best_epoch < settings.patience:
        _train_epoch(model, optimizer, job, rows, outcome, settings.batch_size, (seed, course.epoch))
        loss = _loss_of(_logits(model, job.encoder, data.val, settings.batch_size), data.val.labels, outcome)
        if not math.isfinite(loss):
            raise UserError(
                f"fine-tuning diverged in epoch {course.epoch + 1}: lower settings.finetuning.learning_rate"
            )
        course.count(loss, model)
        _save(checkpoint, key, model, optimizer, course)
        progress(course.epoch, loss)
    model.load_state_dict(course.best)
    linear = _logits(model, job.encoder, data.test, settings.batch_size).double().numpy()
    facts = {"epochs": course.epoch, "best_epoch": course.best_epoch, "validation_loss": round(course.best_loss, 6)}
    return linear if outcome == "binary" else one_against_rest(linear), facts | {"finetuned": True}


def _new_classifier(job: Job, seed: int) -> Classifier:
    """A copy of the encoder under a linear layer that starts at random."""
    encoder = job.encoder
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Classifier(encoder.trainable_copy(), encoder.width, len(job.data.label_names))
    return model.to(encoder.device)


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


def _train_epoch(
    model: Classifier,
    optimizer: torch.optim.Optimizer,
    job: Job,
    rows: IntArray,
    outcome: Outcome,
    size: int,
    seed: tuple[int, int],
) -> None:
    model.train()
    # Dropout and stochastic depth draw from the global generator: equal seeds, equal epochs, also after a resumption.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed[0] * 100_003 + seed[1])
        for batch in _shuffled(rows, size, seed):
            labels = torch.from_numpy(job.data.train.labels[batch]).float().to(job.encoder.device)
            if labels.isnan().all():
                continue
            logits = model(job.encoder.tensors(np.asarray(job.data.train.pixels[batch])))
            loss = _cross_entropy(logits, labels, outcome)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()


def _shuffled(rows: IntArray, size: int, seed: tuple[int, int]) -> Iterator[IntArray]:
    """Batches of nearly one size, so that none has a single image, whose BatchNorm would mean nothing."""
    order = rows[np.random.default_rng(seed).permutation(len(rows))]
    return iter(np.array_split(order, math.ceil(len(order) / size)))


@torch.no_grad()
def _logits(model: Classifier, frozen: FrozenEncoder, images: ImageSet, size: int) -> Tensor:
    """(n, C) on the CPU."""
    model.eval()
    starts = range(0, len(images), size)
    return torch.cat(
        [model(frozen.tensors(np.asarray(images.pixels[start : start + size]))).cpu() for start in starts]
    )


def _loss_of(logits: Tensor, labels: FloatArray, outcome: Outcome) -> float:
    return float(_cross_entropy(logits, torch.from_numpy(labels).float(), outcome))


def _cross_entropy(logits: Tensor, labels: Tensor, outcome: Outcome) -> Tensor:
    """Mean over the labels that are known."""
    if outcome == "multiclass":
        return -(log_softmax(logits, 1) * labels).sum(1).mean()
    known = ~labels.isnan()
    return binary_cross_entropy_with_logits(logits[known], labels[known])


def _save(file: Path, key: str, model: Classifier, optimizer: torch.optim.Optimizer, course: _Course) -> None:
    content = {"key": key, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "course": vars(course)}
    write_atomically(file, lambda path: torch.save(content, path), durable=False)


def _load(file: Path, key: str, model: Classifier, optimizer: torch.optim.Optimizer) -> _Course:
    """What was saved with the same key, put back; a fresh start without it."""
    if not file.is_file():
        return _Course()
    content = torch.load(file, weights_only=True, map_location="cpu")
    if content["key"] != key:
        return _Course()
    model.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    return _Course(**content["course"])
