"""A tiny recipe, tiny data, and child processes that die where they are told to."""

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cmcgns.data.pairs.batch import Batch, BatchRequest
from cmcgns.models import checked_tensors
from cmcgns.phantom import sentence_truth
from cmcgns.settings.config import Recipe
from cmcgns.settings.recipe import parse_recipe
from cmcgns.training import loop, pretrain
from cmcgns.training.checkpoint import TrainingState

TRAIN, VALIDATION, BATCH = 52, 11, 8  # neither is a multiple of the batch
STEPS = TRAIN // BATCH  # an epoch

# Every source of randomness is on: dropout, crops, intensity, hidden regions, the seeding of the bank.
SETTINGS: dict[str, dict[str, Any]] = {
    "data": {
        "image_size": 32,
        "resize": 36,
        "max_tokens": 128,
        "max_sentences": 12,
        "intensity_jitter": 0.2,
    },
    "image_encoder": {
        "name": "resnet10t",
        "channels": 1,
        "output_stride": 8,
        "options": {"channels": [8, 16, 24, 32], "stem_width": 8},
    },
    "report_encoder": {"layers": 1, "width": 32, "heads": 2, "vocabulary": 300, "dropout": 0.1},
    "objective": {
        "dim": 32,
        "decoder_width": 16,
        "weight_image": 0.02,  # every term
        "negatives": "cluster",
        "centroid_negatives": True,
        "reconstruction": "cross_modal",
        "bank": {"clusters": 6, "start_from_step": 0, "start_by_step": 4, "check_every": 2},
    },
    "alignment": {"epochs": 2, "learning_rate": 2e-3, "warmup_epochs": 0.5},
    "reconstruction": {"epochs": 1, "learning_rate": 1e-3, "warmup_epochs": 0.5},
    "training": {"batch_size": BATCH, "checkpoint_every": 4, "log_every": 3, "seed": 3},
}


def tiny_recipe(**changes: Any) -> Recipe:
    """The recipe with some keys changed, such as `training__accumulate=2`."""
    settings = json.loads(json.dumps(SETTINGS))
    for key, value in changes.items():
        *groups, last = key.split("__")
        target = settings
        for group in groups:
            target = target.setdefault(group, {})
        target[last] = value
    return parse_recipe(settings, "tiny")


def run(data: Path, out: Path, recipe: Recipe | None = None, **options: Any) -> Path:
    """Pretrain in this process, as the command line does."""
    options = {"oracle": sentence_truth} | options
    return pretrain.pretrain(recipe or tiny_recipe(), data, out, accelerator="cpu", quiet=True, **options)


def assert_same_end(first: Path, second: Path) -> None:
    """Weights, buffers (the bank) and metrics agree in every bit."""
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def at_step(number: int, act: Callable[[], None]) -> None:
    """Do something instead of (when it kills) or before optimiser step `number`, counted from 0."""
    step, count = loop.training_step, iter(range(10_000))

    def counted(*args: Any, **options: Any) -> Any:
        if next(count) == number:
            act()
        return step(*args, **options)

    loop.training_step = counted


def kill() -> None:
    """What `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at_step(number: int) -> None:
    at_step(number, kill)


def kill_after_best_weights(number: int) -> None:
    """Die between the best weights of an epoch and its checkpoint."""
    save = loop.save_checkpoint

    def dying(folder: Path, task: Any, optimizer: Any, state: TrainingState, keep: int) -> Path:
        if state.epoch == number and state.step == 0:
            kill()
        return save(folder, task, optimizer, state, keep)

    loop.save_checkpoint = dying


def kill_while_writing(number: int) -> None:
    """Die with half of the checkpoint of step `number` on the disk."""
    save = checked_tensors.save_file

    def dying(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        save(tensors, path, metadata=metadata)
        if f"step-{number:08d}" in str(path):
            os.truncate(path, Path(path).stat().st_size // 2)
            kill()

    checked_tensors.save_file = dying


def kill_before_the_end(_: int) -> None:
    """Die after the last step, before the weights are written."""
    pretrain.save_weights = lambda *_, **__: kill()  # type: ignore[assignment]


def signal_at_step(number: int, *signals: int) -> None:
    """Get signals during a step."""

    def act() -> None:
        for one in signals:
            os.kill(os.getpid(), one)

    at_step(number, act)


def in_child(target: Callable[..., None], *args: Any, **options: Any) -> int:
    """Exit code of a function in a process of its own; minus the signal's number if one killed it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cmcgns.training.pretrain", "cmcgns.cli.app", "lightning.fabric", "transformers"])
    process = context.Process(target=target, args=args, kwargs=options)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def run_with_fault(
    fault: Callable[..., None], numbers: tuple[int, ...], data: Path, out: Path, recipe: Recipe, **options: Any
) -> None:
    """Target of `in_child`: pretrain with something that goes wrong."""
    torch.set_num_threads(1)
    fault(*numbers)
    run(data, out, recipe, **options)


def command_line(
    fault: Callable[..., None] | None, numbers: tuple[int, ...], log: Path, arguments: list[str]
) -> None:
    """Target of `in_child`: the command line, its output in a file."""
    from cmcgns.cli.app import main

    torch.set_num_threads(1)
    fault(*numbers)
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.argv = ["cmcgns", *arguments]
        main()


def first_batch(dataset: Any, rows: list[int]) -> Batch:
    """Rows of a data set without anything random."""
    batch: Batch = dataset[BatchRequest(np.array(rows))]
    return batch
