"""`cmcgns demo`: the main job on the built-in synthetic studies, from nothing to a report."""

import logging
import os
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from cmcgns.config import Recipe
from cmcgns.data.phantom import prompts, write_dataset
from cmcgns.errors import UserError
from cmcgns.evaluation.judge import compare, interval_text, report_use, score, summarise
from cmcgns.evaluation.study_set import read_study_set
from cmcgns.files import write_json
from cmcgns.inspect.report import write_report
from cmcgns.pretrained import Pretrained, load
from cmcgns.task import build_task
from cmcgns.training.pretrain import pretrain

COUNTS = {"train": 2000, "val": 200, "test": 500}
IMAGE_SIZE = 128
_ROWS = {
    "linear_auroc": "linear probe, 10 % of the labels, mean AUROC",
    "zero_shot_auroc": "zero-shot, mean AUROC",
    "report_to_image_r10": "report → image, R@10",
}


def run_demo(recipe: Recipe, out: Path, counts: dict[str, int] | None = None) -> Path:
    """Make studies, pretrain, judge against a random encoder, write the report.

    An interrupted demo goes on where it stopped.

    Args:
        recipe: settings of the run.
        out: folder of everything; `report.html` is for people.
        counts: studies of each split.

    Returns:
        Path of the report.

    Raises:
        UserError: there is a finished demo already.
    """
    if (out / "report.html").exists():
        raise UserError(f"{out / 'report.html'} is there already: open it, or choose another --out")
    console = Console(highlight=False)
    started = time.perf_counter()
    data = make_studies(out / "data", counts or COUNTS, recipe.training.seed, console)
    run = out / "run"
    pretrain(recipe, data, run, resume=(run / "config.yaml").exists())
    trained = time.perf_counter() - started
    logging.getLogger("cmcgns.models.freeze").setLevel(logging.WARNING)  # the run has said it already
    console.print("judging the encoder against a randomly initialised one")
    results = judge(run, data)
    results["seconds"] = {"pretrain": trained, "total": time.perf_counter() - started}
    write_json(out / "results.json", results)
    report = write_report(run, data, results, out)
    _print_results(results, console)
    console.print(f"{time.perf_counter() - started:.0f} s in all. Open [bold]{report}[/bold]")
    return report


def make_studies(folder: Path, counts: dict[str, int], seed: int, console: Console) -> Path:
    """Write synthetic studies, unless they are there already."""
    if not (folder / "manifest.parquet").exists():
        console.print(f"drawing {sum(counts.values())} synthetic studies")
        write_dataset(folder, counts, seed=seed, size=IMAGE_SIZE, workers=min(os.cpu_count() or 1, 8))
    return folder


def judge(run: Path, data: Path) -> dict[str, Any]:
    """Figures of a run on synthetic studies, of a randomly initialised twin, and their paired differences."""
    model = load(run)
    random = random_twin(model)
    train, validation, test = (read_study_set(data, split, model) for split in ("train", "val", "test"))
    scores = score(model, train, validation, test, prompts())
    baseline = score(random, train, validation, test, prompts())
    rebuilds = model.task.objective.reconstruction is not None and model.recipe.reconstruction.epochs > 0
    return {
        "pretrained": summarise(scores, test),
        "random": summarise(baseline, test),
        "difference": compare(scores, baseline, test),
        "report_use": report_use(model, test) if rebuilds else None,
        "counts": {"train": len(train.frame), "val": len(validation.frame), "test": len(test.frame)},
    }


def random_twin(model: Pretrained) -> Pretrained:
    """The same architecture and tokenizer with random weights (another seed than the run's)."""
    torch.manual_seed(model.recipe.training.seed + 1)
    settings = model.recipe.image_encoder.model_copy(update={"weights": None})
    recipe = model.recipe.model_copy(update={"image_encoder": settings})
    config = model.task.model.report_encoder.config
    return Pretrained(build_task(recipe, len(model.tokenizer), config), model.tokenizer, recipe)


def _print_results(results: dict[str, Any], console: Console) -> None:
    table = Table(title=f"{results['counts']['test']} test studies (95 % intervals)")
    for heading in ("", "random", "pretrained", "difference"):
        table.add_column(heading, justify="left" if heading == "" else "right")
    for key, name in _ROWS.items():
        cells = (interval_text(results[column][key]) for column in ("random", "pretrained", "difference"))
        table.add_row(name, *cells)
    console.print(table)
    if results["report_use"]:
        difference = interval_text(results["report_use"]["difference"], 4)
        console.print(f"L1 inside hidden findings, another study's report minus the right one: {difference}")
