"""Early-stopped training of a head: best weights of validation, and going on after an interruption."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from cmcgns.common.errors import UserError
from cmcgns.common.files import write_atomically
from cmcgns.evaluation.contract import Job
from cmcgns.evaluation.data import work_key
from cmcgns.evaluation.protocols import Cell
from cmcgns.metrics.ranking import IntArray

SAVE_SECONDS = 30.0  # between two checkpoints
_Weights = dict[str, Tensor]
Batch = TypeVar("Batch")


class Head(ABC, Generic[Batch]):
    """What is trained, and how: everything in which heads differ.

    Args:
        model: its parameters and buffers; changed in place.
        optimizer: over its parameters.
        rate: of learning, as the user sets it; named where a training diverges.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, rate: str) -> None:
        self.model, self.optimizer, self.rate = model, optimizer, rate

    @abstractmethod
    def batches(self, epoch: int) -> Iterable[Batch]:
        """What the epoch (from 0) shows, in its order; equal epochs give equal batches."""

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor | None:
        """Loss of a batch, a number with a gradient; None: nothing can be learnt from it."""

    @abstractmethod
    def validate(self) -> float:
        """Figure of the whole validation split, lower is better; called in eval mode and without gradients."""

    def step(self, batch: Batch) -> Tensor | None:
        """One step of the optimiser; the loss."""
        loss = self.loss(batch)
        if loss is not None:
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            loss = loss.detach()
        return loss


@dataclass(frozen=True)
class Schedule:
    """When a training stops, and where it is kept meanwhile.

    Attributes:
        epochs: at most.
        patience: epochs without a better validation after which it stops.
        seed: of dropout and the like.
        checkpoint: file for an unfinished training; the caller removes it when nothing can be lost any more.
        key: of everything that the training depends on; a checkpoint with another key is not used.
        progress: called after every epoch with the epochs done and the validation figure.
        save_seconds: between two checkpoints.
    """

    epochs: int
    patience: int
    seed: int = 0
    checkpoint: Path | None = None
    key: str = ""
    progress: Callable[[int, float], None] = lambda _epoch, _figure: None
    save_seconds: float = SAVE_SECONDS


@dataclass
class Trained:
    """How far a training is, or how it went.

    Attributes:
        epochs: done.
        best_epoch: whose weights count, from 1; 0 before the first.
        best: validation figure of that epoch.
        seconds: spent, over all interruptions.
    """

    epochs: int = 0
    best_epoch: int = 0
    best: float = math.inf
    seconds: float = 0.0


def schedule_of(job: Job, cell: Cell, epochs: int, patience: int, figure: str = "loss") -> Schedule:
    """How a cell's head is trained: by the cell's seed, kept in the job's folder of unfinished work."""
    number = job.cells.index(cell)

    def progress(epoch: int, value: float) -> None:
        text = f"{cell.name}: epoch {epoch} of at most {epochs}, validation {figure} {abs(value):.4f}"
        job.progress(text, (number + epoch / epochs) / len(job.cells))

    key = work_key(job.data, job.encoder, cell.name)
    return Schedule(epochs, patience, cell.seed or 0, checkpoint_of(job, cell), key, progress, SAVE_SECONDS)


def checkpoint_of(job: Job, cell: Cell) -> Path:
    """File of an unfinished training."""
    return job.scratch / f"{cell.name}.pt"


def shuffled(rows: IntArray, seed: int, epoch: int) -> IntArray:
    """Rows in an order that depends on seed and epoch alone."""
    return rows[np.random.default_rng([seed, epoch]).permutation(len(rows))]


def even_batches(rows: IntArray, size: int, seed: int, epoch: int) -> list[IntArray]:
    """Shuffled rows in batches as equal as can be, of about `size`.

    None has a single image, of which BatchNorm could not tell the spread: a lone training image comes twice.
    """
    order = shuffled(rows.repeat(2) if len(rows) == 1 else rows, seed, epoch)
    return np.array_split(order, min(len(order) // 2, math.ceil(len(order) / size)))


def train_head(head: Head[Any], schedule: Schedule) -> Trained:
    """Train until validation stops it; the model ends with the weights of its best epoch, in eval mode.

    Raises:
        UserError: a loss or a validation figure that is not finite.
    """
    state, best = _resume(head, schedule)
    saved = time.monotonic()
    began = saved - state.seconds
    while state.epochs < schedule.epochs and state.epochs - state.best_epoch < schedule.patience:
        _train_epoch(head, schedule.seed, state.epochs)
        head.model.eval()
        with torch.no_grad():
            figure = head.validate()
        state.epochs += 1
        _check_finite(head, "validation", figure, state.epochs)
        if figure < state.best:
            state.best, state.best_epoch, best = figure, state.epochs, _copy(head.model)
        state.seconds = time.monotonic() - began
        if schedule.checkpoint is not None and time.monotonic() - saved >= schedule.save_seconds:
            _save(head, state, best, schedule.checkpoint, schedule.key)
            saved = time.monotonic()
        schedule.progress(state.epochs, figure)
    head.model.load_state_dict(best)
    head.model.eval()
    return state


def _train_epoch(head: Head[Any], seed: int, epoch: int) -> None:
    head.model.train()
    # Dropout and stochastic depth draw from the global generator: equal seeds, equal epochs, also after a resumption.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed * 100_003 + epoch)
        losses = [loss for batch in head.batches(epoch) if (loss := head.step(batch)) is not None]
    if losses:
        _check_finite(head, "training", float(torch.stack(losses).mean()), epoch + 1)


def _check_finite(head: Head[Any], kind: str, value: float, epoch: int) -> None:
    if not math.isfinite(value):
        raise UserError(f"the {kind} loss is {value} in epoch {epoch}; a lower {head.rate} may help")


def _copy(model: nn.Module) -> _Weights:
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def _save(head: Head[Any], state: Trained, best: _Weights, file: Path, key: str) -> None:
    content = {
        "key": key,
        "model": head.model.state_dict(),
        "optimizer": head.optimizer.state_dict(),
        "state": asdict(state),
        "best": best,
    }
    write_atomically(file, lambda path: torch.save(content, path))


def _resume(head: Head[Any], schedule: Schedule) -> tuple[Trained, _Weights]:
    """What an interrupted training of the same key left, put back; else, or if the file is damaged, a fresh start."""
    content: dict[str, Any] = {}
    if schedule.checkpoint is not None and schedule.checkpoint.is_file():
        with suppress(Exception):  # any damaged file: the training can be done again
            content = torch.load(schedule.checkpoint, map_location="cpu", weights_only=True)
    fresh = _copy(head.model)
    if content.get("key") == schedule.key:
        try:
            head.model.load_state_dict(content["model"])
            head.optimizer.load_state_dict(content["optimizer"])
            return Trained(**content["state"]), content["best"]
        except RuntimeError:  # a head of another version, whose parameters have other names
            head.model.load_state_dict(fresh)
    return Trained(), fresh
