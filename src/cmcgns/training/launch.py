"""Where a run runs: devices, ranks, memory."""

import os
import resource
import sys
from typing import Any

import torch

from cmcgns.config import Recipe
from cmcgns.errors import UserError


def launch(recipe: Recipe, devices: int, nodes: int, accelerator: str) -> Any:
    """Start Fabric; with several devices or nodes every rank runs what follows.

    Raises:
        UserError: no such accelerator, or a number of processes that does not fit.
    """
    from lightning.fabric import Fabric

    strategy = "ddp" if devices * nodes > 1 else "auto"
    try:
        fabric = Fabric(
            accelerator=accelerator,
            devices=devices,
            num_nodes=nodes,
            strategy=strategy,
            precision=recipe.training.precision,
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(f"--accelerator {accelerator} with {devices} device(s) cannot be used: {error}") from error
    fabric.launch()
    # Processes that torchrun started would otherwise all believe to be alone, in one run folder.
    processes = int(os.environ.get("WORLD_SIZE") or fabric.world_size)
    if processes != fabric.world_size:
        raise UserError(
            f"started as {processes} processes, but --devices × --nodes is {fabric.world_size}: make them equal"
        )
    return fabric


def peak_memory(device: torch.device) -> float:
    """MiB: of the GPU's allocator, or of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
