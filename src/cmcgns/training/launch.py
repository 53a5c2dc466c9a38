"""Where a run runs: devices, ranks, memory."""

import resource
import sys
from typing import Any

import torch

from cmcgns.config import Recipe


def launch(recipe: Recipe, devices: int, nodes: int, accelerator: str) -> Any:
    """Start Fabric; with several devices or nodes every rank runs what follows."""
    from lightning.fabric import Fabric

    strategy = "ddp" if devices * nodes > 1 else "auto"
    fabric = Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy=strategy,
        precision=recipe.training.precision,
    )
    fabric.launch()
    return fabric


def peak_memory(device: torch.device) -> float:
    """MiB: of the GPU's allocator, or of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
