"""`--dry-run`: build everything, run two steps of each stage, say what the whole run would take."""

import time
from pathlib import Path

from cmcgns.common.errors import UserError
from cmcgns.data.pairs.dataset import make_loader
from cmcgns.data.pairs.order import mix
from cmcgns.data.shards.stream import training_order
from cmcgns.settings.config import Recipe
from cmcgns.training.data import prepare_data
from cmcgns.training.initialise import build_for
from cmcgns.training.launch import launch, peak_memory
from cmcgns.training.loop import STAGES
from cmcgns.training.step import build_optimizer, training_step


def dry_run(
    recipe: Recipe,
    data: Path | str,
    accelerator: str = "auto",
    steps: int = 2,
    processes: int = 1,
    fresh: bool = True,
) -> dict[str, float]:
    """Build everything, run two steps of each stage and estimate the whole run; writes nothing but the image cache.

    Args:
        recipe: all settings.
        data: table or folder of pairs, or of shards.
        accelerator: auto, cpu, cuda or mps.
        steps: to time, of each stage.
        processes: that the run is to have.
        fresh: whether the run starts from nothing.

    Returns:
        peak memory in MiB, pairs/s of each stage, hours of the whole run (validation not included).

    Raises:
        UserError: bad settings or data, several processes, or a run that starts from another one.
    """
    if processes > 1 or not fresh:
        raise UserError(
            "--dry-run looks at one process and a fresh start: leave out --devices, --nodes, --init, --resume"
        )
    fabric = launch(recipe, 1, 1, accelerator)
    prepared = prepare_data(recipe, data, fixed_shapes=fabric.device.type == "cuda")
    task = build_for(recipe, prepared)
    figures: dict[str, float] = {}
    hours = 0.0
    training = recipe.training
    per_step = training.batch_size * training.accumulate
    for stage in STAGES:
        settings = getattr(recipe, stage)
        if settings.epochs == 0:
            continue
        task.set_stage(stage)
        module, optimizer = fabric.setup(task, build_optimizer(task, settings))
        task.train()
        order = training_order(prepared.train, training.batch_size, mix(training.seed))
        loader = iter(make_loader(prepared.train, order, recipe.data.workers))
        first = next(loader)
        seconds = []
        for step in range(steps + 1):  # the first one warms up
            start = time.perf_counter()
            # A small data set may hold fewer batches than are timed: the first one comes again.
            group = [next(loader, first).to(fabric.device) for _ in range(training.accumulate)]
            losses = training_step(fabric, module, task, optimizer, group, seed=step, clip=training.clip)
            float(losses["loss"])
            seconds.append(time.perf_counter() - start)
        speed = per_step / (sum(seconds[1:]) / steps)
        figures[f"{stage}_pairs_per_second"] = speed
        hours += settings.epochs * len(prepared.train) / speed / 3600
    return figures | {"peak_memory_mib": peak_memory(fabric.device), "hours": hours}


def describe(figures: dict[str, float]) -> str:
    """The estimate as lines for people; less than an hour in minutes."""
    lines = []
    for name, value in figures.items():
        if name == "hours" and value < 1:
            name, value = "minutes", 60 * value
        lines.append(f"{name.replace('_', ' '):<36}{value:,.2f}")
    return "\n".join(lines)
