"""Weights and checkpoints in files: safetensors, atomic, the newest k kept. No pickle anywhere."""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from cmcgns.common.errors import UserError
from cmcgns.common.files import write_atomically
from cmcgns.models.freeze import trained_parameters
from cmcgns.models.weights import below, check_keys

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


def save_weights(path: Path, module: nn.Module, about: dict[str, Any] | None = None) -> None:
    """Write every parameter and buffer of a module."""
    _write(path, module.state_dict(), {"about": json.dumps(about or {})})


def load_weights(path: Path, module: nn.Module) -> dict[str, Any]:
    """Fill a module from `save_weights`, strictly, and check that the values arrived.

    Returns:
        What was said about the weights when they were saved.

    Raises:
        UserError: no such file; keys or shapes differ.
    """
    _fill(module, _read(path), path)
    with safe_open(path, "pt") as file:
        return dict(json.loads(file.metadata()["about"]))


def save_checkpoint(
    folder: Path, task: nn.Module, optimizer: torch.optim.Optimizer, state: TrainingState, keep: int
) -> Path:
    """Write weights, optimiser and state as one file; remove all but the newest `keep`."""
    path = folder / f"step-{state.global_step:08d}.safetensors"
    tensors = {_TASK + name: value for name, value in task.state_dict().items()}
    names = _parameter_names(task, optimizer)
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"{_OPTIMIZER}{names[index]}/{kind}": value for kind, value in values.items()}
    _write(path, tensors, {"progress": json.dumps(asdict(state))})
    for old in checkpoints(folder)[:-keep]:
        old.unlink()
    return path


def checkpoints(folder: Path) -> list[Path]:
    """All checkpoints of a run, oldest first."""
    return sorted(folder.glob("step-*.safetensors"))


def read_state(path: Path) -> TrainingState:
    """Where the run stood when the checkpoint was written."""
    with safe_open(path, "pt") as file:
        return TrainingState(**json.loads(file.metadata()["progress"]))


def load_task(path: Path, task: nn.Module) -> None:
    """Fill the task from a checkpoint, strictly."""
    _fill(task, below(_read(path), _TASK), path)


def load_optimizer(path: Path, task: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Fill the optimiser from a checkpoint; a checkpoint at the very start of a stage holds none."""
    tensors = below(_read(path), _OPTIMIZER)
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


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    on_host = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_atomically(path, lambda temporary: save_file(on_host, temporary, metadata=metadata))


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"{path}: no such weights file")
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping


def _fill(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Load tensors and check that their values arrived."""
    check_keys(dict(tensors), module.state_dict(), str(path))
    module.load_state_dict(tensors)
    arrived = {name: value.cpu() for name, value in module.state_dict().items()}
    wrong = [name for name, value in tensors.items() if not _same(arrived[name], value)]
    if wrong:
        raise RuntimeError(f"{path}: {len(wrong)} tensors did not arrive, for example {wrong[0]}")


def _same(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and torch.allclose(first, second, rtol=0, atol=0, equal_nan=True)
