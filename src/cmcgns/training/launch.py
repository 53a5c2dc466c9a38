"""Where a run runs, and how it is asked to stop: devices, ranks, memory, signals."""

import logging
import os
import resource
import signal
import sys
from datetime import timedelta
from types import FrameType
from typing import Any

import torch

from cmcgns.common.errors import UserError, did_you_mean, one_line
from cmcgns.common.processes import end_after_parent
from cmcgns.settings.config import Recipe

logger = logging.getLogger(__name__)

ACCELERATORS = ("auto", "cpu", "cuda", "mps")
_FEW = 8  # processes on a CPU that are fine on any machine, to try things
_PATIENCE = timedelta(hours=6)  # of ranks that wait while the first one hashes all image files, over a network maybe
_GRACE = 30.0  # seconds that a rank has to end by itself once the first one is gone
_MOST = 4096  # devices of a machine, or machines


class Interruption:
    """Remembers the first signal; a second one acts at once."""

    def __init__(self) -> None:
        self.caught = 0

    def remember(self, number: int, _: FrameType | None) -> None:
        """The handler of signals."""
        if self.caught:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.caught = number

    def agreed(self, fabric: Any, together: bool) -> int:
        """The signal that was caught, 0 for none.

        Ranks have to agree, or one would wait for the others for ever; they can only when they come `together`.
        """
        if fabric.world_size == 1:
            return self.caught
        if not together:
            return 0
        return int(fabric.all_reduce(torch.tensor(self.caught, device=fabric.device), reduce_op="max"))


def is_first_process() -> bool:
    """Whether this process is to be the first rank, which alone writes; known before Fabric starts the others."""
    ranks = ("RANK", "SLURM_PROCID", "NODE_RANK", "GROUP_RANK", "LOCAL_RANK")
    return not any(int(os.environ.get(name) or 0) for name in ranks)


def launch(recipe: Recipe, devices: int, nodes: int, accelerator: str) -> Any:
    """Start Fabric; with several devices or nodes every rank runs what follows.

    Raises:
        UserError: no such accelerator, or a number of processes that does not fit.
    """
    if accelerator not in ACCELERATORS:
        hint = did_you_mean(accelerator, ACCELERATORS)
        raise UserError(f"accelerator {accelerator}: there are {', '.join(ACCELERATORS)}.{hint}")
    for name, number in (("devices", devices), ("nodes", nodes)):
        if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= _MOST:
            raise UserError(f"--{name} is {number!r}; a whole number from 1 to {_MOST} is expected")
    _check_cores(accelerator, devices)
    fabric = _fabric(recipe, devices, nodes, accelerator)
    fabric.launch()
    if fabric.local_rank > 0 and "TORCHELASTIC_RUN_ID" not in os.environ:  # else torchrun ends them all
        # The parent is the first rank. Gloo notices when it is gone and says so; NCCL does not, and holds the GPU.
        end_after_parent(os.getppid(), _GRACE)
    _check_ranks(fabric)
    if recipe.training.precision == "bf16-mixed" and fabric.is_global_zero:
        _warn_of_imitation(fabric.device.type)
    return fabric


def _fabric(recipe: Recipe, devices: int, nodes: int, accelerator: str) -> Any:
    """Fabric in the recipe's precision, before it starts any process."""
    from lightning.fabric import Fabric
    from lightning.fabric.strategies import DDPStrategy
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    from cmcgns.training.mixed_precision import UnconvertedBatches

    strategy = DDPStrategy(timeout=_PATIENCE) if devices * nodes > 1 else "auto"
    mixed = UnconvertedBatches() if recipe.training.precision == "bf16-mixed" else None
    try:
        fabric = Fabric(
            accelerator=accelerator,
            devices=devices,
            num_nodes=nodes,
            strategy=strategy,
            precision=None if mixed else recipe.training.precision,
            plugins=mixed,
        )
    except (ValueError, RuntimeError, MisconfigurationException) as error:
        raise UserError(
            f"accelerator {accelerator} with {devices} device(s) cannot be used: {one_line(error)}"
        ) from error
    if mixed is not None:
        mixed.device = fabric.device.type  # known only now: `auto` has chosen
    return fabric


def _warn_of_imitation(device: str) -> None:
    """Say that bfloat16 is slow here; asked of a GPU only once each rank has its own: else all hold the first."""
    from cmcgns.training.mixed_precision import imitated_bfloat16

    if lack := imitated_bfloat16(device):
        logger.warning("training.precision bf16-mixed: %s, so 32-true is faster here", lack)


def _check_ranks(fabric: Any) -> None:
    """Refuse processes that do not know of each other: several runs would write into one folder."""
    # Processes that torchrun started would otherwise all believe to be alone, in one run folder.
    processes = int(os.environ.get("WORLD_SIZE") or fabric.world_size)
    if processes != fabric.world_size:
        raise UserError(
            f"started as {processes} processes, but --devices × --nodes is {fabric.world_size}: make them equal"
        )
    if fabric.is_global_zero != is_first_process():  # else several runs would write into one folder, unclaimed
        raise UserError(
            "RANK, LOCAL_RANK, NODE_RANK or SLURM_PROCID says that this process is one of several, --devices and "
            "--nodes say that it is alone: make them agree, or unset the variable"
        )


def _check_cores(accelerator: str, devices: int) -> None:
    """Refuse more processes on a CPU than can be meant: each would load the whole model."""
    cores = os.cpu_count() or 1
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available())
    if on_cpu and devices > max(cores, _FEW):
        raise UserError(f"--devices {devices}: this machine has {cores} cores; give at most {max(cores, _FEW)}")


def peak_memory(device: torch.device) -> float:
    """MiB: of the GPU's allocator, or of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
