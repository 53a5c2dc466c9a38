"""`cmcgns pretrain --dry-run`: a run of a few steps in a temporary folder, and what the whole one will take.

Whatever only a later phase of a run does is done once: a step of each stage, the start of the bank, a validation, the
hand-over of the best weights, a checkpoint written and read back, the final weights.
"""

import logging
import statistics
from itertools import chain, repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from cmcgns.common.errors import UserError
from cmcgns.common.processes import Stopped
from cmcgns.data.pairs.batch import mix, steps_per_epoch
from cmcgns.data.pairs.dataset import PairDataset
from cmcgns.data.pairs.loader import iterate_batches, make_loader
from cmcgns.data.shards.stream import ShardImages, training_order
from cmcgns.objectives.objective import STAGES, Stage, find_objective
from cmcgns.settings.config import Recipe
from cmcgns.training.bench import optimizer_step, time_steps
from cmcgns.training.checkpoint import (
    TrainingState,
    checkpoints,
    load_optimizer,
    load_task,
    load_weights,
    save_weights,
)
from cmcgns.training.data import PreparedData, describe_batches, prepare_data
from cmcgns.training.initialise import check_source, first_task
from cmcgns.training.journal import RunConsole, open_journal
from cmcgns.training.launch import launch, peak_memory
from cmcgns.training.loop import Loop
from cmcgns.training.run_folder import RunFolder
from cmcgns.training.step import build_optimizer
from cmcgns.training.task import PretrainingTask

logger = logging.getLogger(__name__)


def dry_run(
    recipe: Recipe,
    data: Path | str,
    accelerator: str = "auto",
    steps: int = 2,
    processes: int = 1,
    resume: bool = False,
    init: Path | None = None,
) -> dict[str, float]:
    """Do everything that the run will do once, and estimate the whole; leaves nothing behind but the image cache.

    Returns:
        pairs/s of each stage, peak memory and the largest size of the run folder in MiB, hours of the whole run
        (validation not included).

    Raises:
        UserError: bad settings or data, several processes, or a run that goes on with another one.
    """
    if processes > 1 or resume:
        raise UserError("--dry-run looks at one process and a new run: leave out --devices, --nodes, --resume")
    short, init = rehearsed(recipe), Path(init) if init else None
    fabric = launch(recipe, 1, 1, accelerator)
    if init is not None:
        check_source(RunFolder(init))
    tokenizer = init / "tokenizer" if init else None
    prepared = prepare_data(recipe, data, tokenizer, fixed_shapes=fabric.device.type == "cuda")
    logger.info("%s", describe_batches(recipe, len(prepared.train), ranks=1))
    with TemporaryDirectory(prefix="cmcgns-dry-run-") as place:
        folder = RunFolder(Path(place))
        task = first_task(short, prepared, folder, None, init)
        disk = rehearse(fabric, task, short, prepared, folder)
    speeds = {stage: _speed(fabric, task, recipe, prepared.train, stage, steps) for stage in _stages(recipe)}
    hours = sum(getattr(recipe, stage).epochs * len(prepared.train) / speed / 3600 for stage, speed in speeds.items())
    figures = {f"{stage}_pairs_per_second": speed for stage, speed in speeds.items()}
    return figures | {"peak_memory_mib": peak_memory(fabric.device), "run_folder_mib": disk, "hours": hours}


def describe_estimate(figures: dict[str, float]) -> str:
    """The estimate as lines for people; less than an hour in minutes."""
    lines = []
    for name, value in figures.items():
        if name == "hours" and value < 1:
            name, value = "minutes", 60 * value
        lines.append(f"{name.replace('_', ' '):<36}{value:,.2f}")
    return "\n".join(lines)


def rehearsed(recipe: Recipe) -> Recipe:
    """The recipe with one epoch of each stage that it has, and a bank that starts with the first step."""
    changes: dict[str, Any] = {
        stage: getattr(recipe, stage).model_copy(update={"epochs": 1}) for stage in _stages(recipe)
    }
    if "bank" in find_objective(recipe.objective).reads:
        at_once = {"start_from_step": 0, "start_by_step": 1, "check_every": 1}
        bank = recipe.objective.bank.model_copy(update=at_once)
        changes["objective"] = recipe.objective.model_copy(update={"bank": bank})
    return recipe.model_copy(update=changes)


def rehearse(fabric: Any, task: PretrainingTask, recipe: Recipe, prepared: PreparedData, folder: RunFolder) -> float:
    """Run a shortened recipe on one step's studies, and read back what it has written.

    Returns:
        MiB of the run folder while the last checkpoint is written.
    """
    training = recipe.training
    train = _longest(prepared.train, training.batch_size * training.accumulate)
    validation = _longest(prepared.validation, training.batch_size)
    folder.state.mkdir()
    try:
        with open_journal(folder, RunConsole(quiet=True), TrainingState(), first=True) as journal:
            Loop(fabric, task, recipe, train, validation, folder, journal).run()
    except Stopped as stopped:
        raise Stopped(stopped.signal_number, "the dry run was stopped") from None
    latest = checkpoints(folder.state)[-1]
    load_task(latest, task)
    load_optimizer(latest, task, build_optimizer(task, getattr(recipe, task.objective.stage)))
    save_weights(folder.best, task)
    load_weights(folder.best, task)
    save_weights(folder.model, task, without=task.training_only)
    weights, checkpoint = folder.model.stat().st_size, latest.stat().st_size
    best = folder.best.stat().st_size if recipe.alignment.epochs else 0
    return (weights + best + (training.keep_checkpoints + 1) * checkpoint) / 2**20


def _stages(recipe: Recipe) -> list[Stage]:
    return [stage for stage in STAGES if getattr(recipe, stage).epochs > 0]


def _longest(dataset: PairDataset, studies: int) -> PairDataset:
    """So many studies, with the longest reports if their images are at hand: these need the most memory."""
    rows = dataset.rows
    if not isinstance(dataset.images, ShardImages):
        rows = rows[np.argsort(-np.diff(dataset.tokens.token_offsets)[rows], kind="stable")]
    return dataset.subset(rows[:studies])


def _speed(fabric: Any, task: PretrainingTask, recipe: Recipe, train: PairDataset, stage: Stage, steps: int) -> float:
    """Pairs a second of one stage."""
    batches = steps_per_epoch(len(train), recipe.training.batch_size)
    accumulate = min(recipe.training.accumulate, batches)  # an epoch's last step takes what is left
    training = recipe.training.model_copy(update={"accumulate": accumulate})
    recipe = recipe.model_copy(update={"training": training})
    task.set_stage(stage)
    order = training_order(train, training.batch_size, mix(training.seed))
    loader = iterate_batches(make_loader(train, order, recipe.data.workers))
    first = next(loader)  # a small data set may hold fewer batches than are timed: it comes again
    step = optimizer_step(fabric, task, recipe, chain(loader, repeat(first)))
    seconds = statistics.mean(time_steps(step, fabric.device, steps, warm_up=1))
    return training.batch_size * training.accumulate / seconds
