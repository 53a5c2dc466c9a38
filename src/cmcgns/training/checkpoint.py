"""Weights and checkpoints in files: safetensors, atomic, the newest k kept. No pickle anywhere."""

import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cmcgns.common.errors import UserError
from cmcgns.common.stored import naming_damage
from cmcgns.models.checked_tensors import DamagedWeights, read_tensors, write_tensors
from cmcgns.models.freeze import trained_parameters
from cmcgns.models.weights import below, check_keys
from cmcgns.training.old_weights import bring_up_to_date

logger = logging.getLogger(__name__)

_TASK, _OPTIMIZER = "task.", "optimizer."


@dataclass
class TrainingState:
    """Where a run stands; everything random follows from these numbers and the seed.

    Attributes:
        stage: index of the current stage.
        epoch: whole epochs done in the stage.
        step: optimiser steps done in the current epoch.
        global_step: optimiser steps done in the run.
        metrics_bytes: length of metrics.jsonl at this moment.
        ranks: number of processes; the order of the data depends on it.
        best: validation L_global and epoch of the best weights so far in this stage.
    """

    stage: int = 0
    epoch: int = 0
    step: int = 0
    global_step: int = 0
    metrics_bytes: int = 0
    ranks: int = 1
    best: dict[str, float] = field(default_factory=dict)


def save_weights(
    path: Path, module: nn.Module, about: dict[str, Any] | None = None, without: tuple[str, ...] = ()
) -> None:
    """Write the parameters and buffers of a module, but those whose names begin as one of `without`."""
    tensors = {name: value for name, value in module.state_dict().items() if not name.startswith(without)}
    write_tensors(path, tensors, "about", about or {})


def load_weights(path: Path, module: nn.Module) -> dict[str, Any]:
    """Fill a module from `save_weights`, strictly, and check that the values arrived.

    Returns:
        What was said about the weights when they were saved.

    Raises:
        UserError: no such file, a damaged one, or keys or shapes differ.
    """
    tensors, about = read_tensors(path)
    _fill(module, tensors, path)
    return about


def save_checkpoint(
    folder: Path, task: nn.Module, optimizer: torch.optim.Optimizer, state: TrainingState, keep: int
) -> Path:
    """Write weights, optimiser and state as one file; remove all but the newest `keep`."""
    path = folder / f"step-{state.global_step:08d}.safetensors"
    tensors = {_TASK + name: value for name, value in task.state_dict().items()}
    names = _parameter_names(task, optimizer)
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"{_OPTIMIZER}{names[index]}/{kind}": value for kind, value in values.items()}
    write_tensors(path, tensors, "progress", asdict(state))
    for old in checkpoints(folder)[:-keep]:
        old.unlink()
    return path


def checkpoints(folder: Path) -> list[Path]:
    """All checkpoints of a run, oldest first."""
    return sorted(folder.glob("step-*.safetensors"))


def newest_whole(folder: Path) -> Path | None:
    """The newest checkpoint that is as it was written; None where there is none at all. Damaged ones are named.

    Raises:
        UserError: all are damaged.
    """
    found, damaged = checkpoints(folder), []
    for path in reversed(found):
        try:
            read_state(path)
        except DamagedWeights as error:
            damaged.append(str(error))
            continue
        for message in damaged:
            logger.warning("%s: the run goes on from the one before, %s", message, path.name)
        return path
    if found:
        raise UserError(f"--resume: no checkpoint is whole: {'; '.join(damaged)}. Start anew in another folder")
    return None


def set_aside(folder: Path, latest: Path) -> None:
    """Rename checkpoints that are newer than the one that a run goes on from: they are damaged, and none of it."""
    for path in checkpoints(folder):
        if path.name > latest.name:
            path.rename(path.with_name(f"damaged-{path.name}"))


def read_state(path: Path, verify: bool = True) -> TrainingState:
    """Where the run stood when the checkpoint was written; `verify` as in `read_tensors`."""
    _, about = read_tensors(path, verify)
    with naming_damage(path, "it is no checkpoint of a run"):
        return TrainingState(**about)


def load_task(path: Path, task: nn.Module, verify: bool = True) -> None:
    """Fill the task from a checkpoint, strictly; `verify` as in `read_tensors`."""
    _fill(task, below(read_tensors(path, verify)[0], _TASK), path)


def load_optimizer(path: Path, task: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Fill the optimiser from a checkpoint; a checkpoint at the very start of a stage holds none.

    Its checksum is not compared: whoever loads an optimiser has read the state or the task of the same file before.
    """
    tensors = below(read_tensors(path, verify=False)[0], _OPTIMIZER)
    if not tensors:
        return
    names, parameters = _parameter_names(task, optimizer), trained_parameters(task)
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, kind = key.rpartition("/")
        parameter = parameters[name]
        if value.shape == parameter.shape:  # keep the memory format: the fused update walks both side by side
            value = torch.empty_like(parameter, requires_grad=False).copy_(value)
        state.setdefault(names.index(name), {})[kind] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _parameter_names(task: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """Names in the order in which the optimiser numbers its parameters."""
    by_identity = {id(parameter): name for name, parameter in trained_parameters(task).items()}
    return [by_identity[id(p)] for group in optimizer.param_groups for p in group["params"]]


def _fill(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Load tensors and check that their values arrived."""
    wanted = module.state_dict()
    tensors = bring_up_to_date(tensors, wanted)
    check_keys(dict(tensors), wanted, str(path))
    module.load_state_dict(tensors)
    arrived = {name: value.cpu() for name, value in module.state_dict().items()}
    wrong = [name for name, value in tensors.items() if not _same(arrived[name], value)]
    if wrong:
        raise RuntimeError(f"{path}: {len(wrong)} tensors did not arrive, for example {wrong[0]}")


def _same(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and torch.allclose(first, second, rtol=0, atol=0, equal_nan=True)
