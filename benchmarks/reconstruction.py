"""What the reconstruction costs: a step of Stage II by mask and target, beside a step of Stage I.

    PYTHONPATH=src python benchmarks/reconstruction.py [--recipe demo] [--rounds 5] [--json FILE]

Random data, batch and precision of the recipe, the variants in turn. On a CPU the time is the processor's, so that a
machine with other work on it tells the same; on a GPU it is the clock's. A ViT of the same grid is timed beside the
recipe's encoder, because only it can leave patches out.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from itertools import repeat
from pathlib import Path

import torch

from cmcgns.settings.recipe import load_recipe
from cmcgns.training.bench import device_name, optimizer_step, random_batch, random_task
from cmcgns.training.launch import launch

VARIANTS: dict[str, list[str]] = {
    "Stage I": [],
    "features": [],
    "pixels": ["mask=pixels"],
    "tokens": ["mask=tokens"],
    "pixels, normalised": ["mask=pixels", "target_per_patch=true"],
    "pixels, twice the side": ["mask=pixels", "target_scale=2"],
    "pixels, high frequencies": ["mask=pixels", "target=high_frequencies"],
    "pixels, average's features": ["mask=pixels", "target=features"],
    "pixels, text map": ["mask=pixels", "target=text_map"],
}
VIT = "image_encoder={name: vit_tiny_patch16_224, channels: 1, options: {patch_size: %d, depth: 6}}"


def make_step(recipe_name: str, encoder: list[str], name: str) -> tuple[Callable[[], None], torch.device]:
    """A step of one variant, to be timed."""
    rebuilding = ["objective.reconstruction=cross_modal", "objective.mask_ratio=0.75"]
    settings = [*rebuilding, *encoder, *(f"objective.{change}" for change in VARIANTS[name])]
    recipe = load_recipe(recipe_name, settings)
    fabric = launch(recipe, 1, 1, "auto")
    torch.manual_seed(0)
    task = random_task(recipe)
    task.set_stage("alignment" if name == "Stage I" else "reconstruction")
    batch = random_batch(recipe, recipe.training.batch_size, task.model.report_encoder.config["vocab_size"])
    return optimizer_step(fabric, task, recipe, repeat(batch.to(fabric.device))), fabric.device


def measure(recipe: str, encoder: list[str], names: list[str], rounds: int) -> tuple[dict[str, float], str]:
    """Median seconds of a step of every variant, and the device."""
    steps = {name: make_step(recipe, encoder, name) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        for name, (step, device) in steps.items():
            cuda = device.type == "cuda"
            clock = time.perf_counter if cuda else time.process_time
            start = clock()
            step()
            if cuda:
                torch.cuda.synchronize()
            if turn:  # the first warms up
                seconds[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}, device_name(device)


def main() -> None:
    """Print a table; with --json write it too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--patch", type=int, default=16, help="of the ViT, pixels")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    encoders = {"the recipe's encoder": [], "ViT": [VIT % arguments.patch]}
    found = {}
    for title, encoder in encoders.items():
        names = [name for name in VARIANTS if name != "tokens" or encoder]
        seconds, device = measure(arguments.recipe, encoder, names, arguments.rounds)
        found[title] = seconds
        print(f"{title}, {device}")
        for name, value in seconds.items():
            print(f"  {name:<28}{1000 * value:>9.1f} ms{value / seconds['Stage I']:>8.2f}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
