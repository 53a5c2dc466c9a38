"""Training of a detector on frozen maps: deterministic by seed, and able to go on after an interruption."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cmcgns.common.files import write_atomically
from cmcgns.evaluation.tasks.detection.anchors import AnchorGrid
from cmcgns.evaluation.tasks.detection.boxes import BoxList
from cmcgns.evaluation.tasks.detection.head import Detector
from cmcgns.evaluation.tasks.detection.loss import detection_loss
from cmcgns.evaluation.tasks.detection.maps import FrozenMaps
from cmcgns.metrics.ranking import IntArray

_SAVED_EVERY = 60.0  # seconds

Criterion = Callable[[Detector], float]
"""What validation says of a detector; lower is better."""


@dataclass(frozen=True)
class TrainingOptions:
    """How a detector is trained.

    Attributes:
        epochs: at most.
        patience: epochs without a better validation after which training stops.
        batch: images of a step.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        seed: of the order of the images.
    """

    epochs: int
    patience: int
    batch: int
    learning_rate: float
    weight_decay: float
    seed: int


@dataclass
class _State:
    epoch: int  # finished ones
    best: float
    best_epoch: int
    best_weights: dict[str, Tensor]


@dataclass(frozen=True)
class Trained:
    """How a training went.

    Attributes:
        epochs: that were trained.
        best_epoch: whose weights the detector has now, from 1.
        best: its validation figure.
    """

    epochs: int
    best_epoch: int
    best: float


def train(
    detector: Detector,
    grid: AnchorGrid,
    maps: FrozenMaps,
    boxes: BoxList,
    rows: IntArray,
    criterion: Criterion,
    options: TrainingOptions,
    checkpoint: Path,
    key: str,
    progress: Callable[[str, float], None],
) -> Trained:
    """Train in place; the detector ends with the weights of its best epoch, in eval mode.

    Args:
        detector: on the device of the maps.
        grid: of its outputs.
        maps: of the training images.
        boxes: of the same images, within the image.
        rows: of the images to learn from.
        criterion: validation figure, lower is better.
        options: epochs and so on.
        checkpoint: file for an unfinished training; the caller deletes it when nothing can be lost any more.
        key: what the training depends on; a checkpoint with another key is not used.
        progress: called after every epoch.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    optimizer = torch.optim.AdamW(detector.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay)
    state = _resume(detector, optimizer, checkpoint, key)
    saved = time.monotonic()
    while state.epoch < options.epochs and state.epoch - state.best_epoch < options.patience:
        loss = _train_epoch(detector, grid, maps, boxes, _batches(rows, options, state.epoch), optimizer)
        state.epoch += 1
        found = criterion(detector.eval())
        if found < state.best or not state.best_weights:
            weights = {name: value.clone() for name, value in detector.state_dict().items()}
            state = _State(state.epoch, found, state.epoch, weights)
        progress(f"epoch {state.epoch}, loss {loss:.3g}, validation {found:.4g}", state.epoch / options.epochs)
        if time.monotonic() - saved > _SAVED_EVERY:
            _save(detector, optimizer, state, checkpoint, key)
            saved = time.monotonic()
    detector.load_state_dict(state.best_weights)
    detector.eval()
    return Trained(state.epoch, state.best_epoch, state.best)


def validation_loss(maps: FrozenMaps, boxes: BoxList, grid: AnchorGrid, batch: int) -> Criterion:
    """The mean loss over all validation images."""

    @torch.no_grad()
    def loss(detector: Detector) -> float:
        total = 0.0
        for first in range(0, len(maps), batch):
            rows = np.arange(first, min(first + batch, len(maps)))
            total += float(_loss(detector, grid, maps, boxes, rows)) * len(rows)
        return total / len(maps)

    return loss


def _train_epoch(
    detector: Detector,
    grid: AnchorGrid,
    maps: FrozenMaps,
    boxes: BoxList,
    batches: list[IntArray],
    optimizer: torch.optim.Optimizer,
) -> float:
    detector.train()
    losses: list[Tensor] = []
    for rows in batches:
        loss = _loss(detector, grid, maps, boxes, rows)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    mean = float(torch.stack(losses).mean())
    if not math.isfinite(mean):
        raise FloatingPointError(f"the loss of the detector became {mean}; a lower learning_rate may help")
    return mean


def _loss(detector: Detector, grid: AnchorGrid, maps: FrozenMaps, boxes: BoxList, rows: IntArray) -> Tensor:
    raw = detector(maps.read(rows))
    corners, there = (each.to(raw.device) for each in boxes.padded(rows))
    return detection_loss(raw, corners, there, grid)


def _batches(rows: IntArray, options: TrainingOptions, epoch: int) -> list[IntArray]:
    """Rows in an order that depends on seed and epoch alone, in batches as equal as can be.

    No batch has a single image, of which BatchNorm could not tell the spread: a single training image comes twice.
    """
    if len(rows) == 1:
        rows = rows.repeat(2)
    order = np.random.default_rng([options.seed, epoch]).permutation(rows)
    return list(np.array_split(order, min(len(order) // 2, math.ceil(len(order) / options.batch))))


def _save(detector: Detector, optimizer: torch.optim.Optimizer, state: _State, checkpoint: Path, key: str) -> None:
    content = {
        "key": key,
        "state": vars(state),
        "detector": detector.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    write_atomically(checkpoint, lambda path: torch.save(content, path))


def _resume(detector: Detector, optimizer: torch.optim.Optimizer, checkpoint: Path, key: str) -> _State:
    state = _State(0, math.inf, 0, {})
    if not checkpoint.is_file():
        return state
    device = next(detector.parameters()).device
    content: dict[str, Any] = torch.load(checkpoint, map_location=device, weights_only=True)
    if content["key"] != key:
        return state
    detector.load_state_dict(content["detector"])
    optimizer.load_state_dict(content["optimizer"])
    return _State(**copy.deepcopy(content["state"]))
