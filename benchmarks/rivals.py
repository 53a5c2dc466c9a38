"""What the method and its rivals cost: time of a step, memory and parameters, beside each other.

    PYTHONPATH=src python benchmarks/rivals.py [--recipe demo] [--rounds 5] [--json FILE]

Random data whose word pieces and sentences fill all places, batch and precision of the recipe, all objectives in
turn. A step is the mean of one of each stage, weighed by their epochs. On a CPU the time is the processor's, so that
a machine with other work on it tells the same; on a GPU it is the clock's. Memory is what a step keeps for its
backward pass, without parameters: the same on every device. Parameters are those that are trained.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import repeat
from pathlib import Path

import torch
from torch import Tensor

from cmcgns.objectives.objective import STAGES
from cmcgns.settings.config import Recipe
from cmcgns.settings.recipe import list_recipes, load_recipe
from cmcgns.training.bench import device_name, optimizer_step, random_batch, random_task
from cmcgns.training.launch import launch
from cmcgns.training.task import PretrainingTask

DECODERS = ("prior", "mrm")  # that read the width of the recipe's decoder, as the method does


@dataclass
class Cost:
    """Of one objective; seconds of every turn, MiB, and millions."""

    seconds: list[float] = field(default_factory=list)
    memory: float = 0.0
    parameters: float = 0.0


def recipes(base: str) -> dict[str, Recipe]:
    """The method and every rival with the encoders, data and schedule of one recipe."""
    own = load_recipe(base)
    found = {"default": own, "sentences": load_recipe(base, ["objective.weight_matching=0"])}
    for name in sorted(each.removeprefix("rival-") for each in list_recipes() if each.startswith("rival-")):
        width = [f"objective.decoder_width={own.objective.decoder_width}"] if name in DECODERS else []
        found[name] = load_recipe(f"{base}+rival-{name}", width)
    return found


def kept_for_backward(task: PretrainingTask, step: Callable[[], None]) -> float:
    """MiB of the tensors that a step keeps for its backward pass, each storage once, without parameters."""
    own = {parameter.untyped_storage().data_ptr() for parameter in task.parameters()}
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        step()
    return sum(sizes.values()) / 2**20


def build(recipe: Recipe, cost: Cost) -> tuple[list[tuple[float, Callable[[], None]]], torch.device]:
    """A step of each stage with its share of the epochs, after a first one of each that tells the memory."""
    fabric, steps = launch(recipe, 1, 1, "auto"), []
    epochs = {"alignment": recipe.alignment.epochs, "reconstruction": recipe.reconstruction.epochs}
    for stage in STAGES:
        torch.manual_seed(0)
        task = random_task(recipe)
        task.set_stage(stage)
        batch = random_batch(recipe, recipe.training.batch_size, task.model.report_encoder.config["vocab_size"])
        step = optimizer_step(fabric, task, recipe, repeat(batch.to(fabric.device)))
        cost.memory = max(cost.memory, kept_for_backward(task, step))
        trained = sum(each.numel() for each in task.parameters() if each.requires_grad)
        cost.parameters = max(cost.parameters, trained / 1e6)
        steps.append((epochs[stage] / sum(epochs.values()), step))
    return steps, fabric.device


def take_turn(steps: list[tuple[float, Callable[[], None]]], device: torch.device) -> float:
    """Seconds of a step, stages weighed by their epochs."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    taken = 0.0
    for share, step in steps:
        start = clock()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken += share * (clock() - start)
    return taken


def main() -> None:
    """Print a table; with --json write it too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    chosen = recipes(options.recipe)
    costs = {name: Cost() for name in chosen}
    built = {name: build(recipe, costs[name]) for name, recipe in chosen.items()}
    for _ in range(options.rounds):
        for name, (steps, device) in built.items():
            costs[name].seconds.append(take_turn(steps, device))
    print(f"recipe {options.recipe}, {device_name(device)}")
    print("| | step, of `clip`'s | kept for the backward pass | parameters that are trained |\n|---|---|---|---|")
    for name, cost in costs.items():
        ratios = [one / other for one, other in zip(cost.seconds, costs["clip"].seconds, strict=True)]
        middle, low, high = statistics.median(ratios), min(ratios), max(ratios)
        times = f"{middle:.2f} ({low:.2f} to {high:.2f})"
        print(f"| `{name}` | {times} | {cost.memory:.0f} MiB | {cost.parameters:.2f} M |")
    if options.json is not None:
        found = {name: asdict(cost) for name, cost in costs.items()}
        options.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
