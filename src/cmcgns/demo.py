"""`cmcgns demo`: the main job on the built-in synthetic studies, from nothing to a report."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cmcgns.common.claim import claimed
from cmcgns.common.errors import UserError
from cmcgns.common.files import write_json
from cmcgns.data.manifest import read_manifest
from cmcgns.evaluation.compare import Comparison, compare_folders, write_comparison_rows
from cmcgns.evaluation.open_encoder import open_encoder
from cmcgns.evaluation.protocols import load_protocol
from cmcgns.evaluation.report_use import report_use
from cmcgns.evaluation.results import ResultRow
from cmcgns.evaluation.run import EvaluateOptions
from cmcgns.evaluation.study_set import read_study_set
from cmcgns.phantom import sentence_truth, write_dataset
from cmcgns.pretrained import load
from cmcgns.reporting.evaluation.command import judge_encoder
from cmcgns.reporting.evaluation.comparison import write_comparison
from cmcgns.reporting.evaluation.names import interval_text
from cmcgns.reporting.evaluation.notices import Records, read_records
from cmcgns.reporting.evaluation.selection import Selection
from cmcgns.reporting.run_page.report import write_run_page
from cmcgns.reporting.run_page.results import MEASURES
from cmcgns.settings.config import Recipe
from cmcgns.training.pretrain import pretrain
from cmcgns.training.run_folder import RunFolder


def summarise_judgements(
    pretrained: Sequence[ResultRow], random: Sequence[ResultRow], comparison: Comparison, kept: Records
) -> dict[str, Any]:
    """What :func:`cmcgns.reporting.run_page.report.write_run_page` shows of two judged encoders.

    Args:
        pretrained: result rows.
        random: of the randomly initialised twin.
        comparison: of the two.
        kept: what the first one's evaluation left in its folder.
    """
    selection = Selection(pretrained, {})
    found = {(row.task, row.metric): row for row in _overall(pretrained) if not row.label}
    about = {measure.key: found.get((measure.task, measure.metric)) for measure in MEASURES}
    tasks = {row.protocol: row.task for row in pretrained}
    return {
        "chance": {key: kept.chance(selection, row) if row else None for key, row in about.items()},
        "pretrained": _summary(pretrained),
        "random": _summary(random),
        "difference": {
            measure.key: {"value": row.difference, "low": row.low, "high": row.high}
            for measure in MEASURES
            for row in comparison.rows
            if row.metric == measure.metric and not row.label and tasks.get(row.protocol) == measure.task
        },
    }


def _overall(rows: Sequence[ResultRow]) -> list[ResultRow]:
    return [row for row in rows if row.seed is None and not row.group]


def _summary(rows: Sequence[ResultRow]) -> dict[str, Any]:
    """Figures of all test studies by key, and AUROC `per_label`."""
    overall = _overall(rows)
    per_label: dict[str, dict[str, float | None]] = {}
    for row in overall:
        if row.label and row.metric == "auroc" and row.task in ("linear", "zero_shot"):
            per_label.setdefault(row.label, {})[row.task] = row.value
    found = {(row.task, row.metric): asdict(row) for row in overall if not row.label}
    names = ("value", "low", "high", "n", "sd")
    return {"per_label": per_label} | {
        measure.key: {name: found[key][name] for name in names}
        for measure in MEASURES
        if (key := (measure.task, measure.metric)) in found
    }


COUNTS = {"train": 2000, "val": 200, "test": 500}
IMAGE_SIZE = 128
PROTOCOLS = ("linear/v1", "phantom-zero-shot/v1", "retrieval/v1", "phantom-grounding/v1", "phantom-presence/v1")
FULL_PROTOCOLS = (
    *PROTOCOLS, "knn/v1", "phantom-detection/v1", "phantom-segmentation/v1", "patch-probe/v1", "phantom-sides/v1",
    "phantom-zero-shot-segmentation/v1",
)  # fmt: skip
FRACTION = 10.0  # per cent of the labels


def run_demo(recipe: Recipe, out: Path, counts: dict[str, int] | None = None, full: bool = False) -> Path:
    """Make studies, pretrain, judge against a random encoder, write the report.

    An interrupted demo goes on where it stopped; a finished one can be judged on all tasks with `full`.

    Returns:
        Path of the report.

    Raises:
        UserError: there is a finished demo already.
    """
    if (out / "report.html").exists() and not full:
        raise UserError(f"{out / 'report.html'} is there already: open it, or choose another --out")
    with claimed(out, "demo"):
        return _run_demo(recipe, out, counts or COUNTS, full)


def _run_demo(recipe: Recipe, out: Path, counts: dict[str, int], full: bool) -> Path:
    console = Console(highlight=False)
    started = time.perf_counter()
    data = make_studies(out / "data", counts, recipe.training.seed, console)
    run = out / "run"
    finished = RunFolder(run).is_finished
    if not finished:
        pretrain(recipe, data, run, resume=(run / "config.yaml").exists(), oracle=sentence_truth)
    trained = time.perf_counter() - started
    console.print("judging the encoder against a randomly initialised one")
    results = judge(run, data, out, console, FULL_PROTOCOLS if full else PROTOCOLS)
    results["seconds"] = ({} if finished else {"pretrain": trained}) | {"total": time.perf_counter() - started}
    write_json(out / "results.json", results)
    report = write_run_page(run, data, results, out)
    _print_results(results, console)
    console.print(f"{time.perf_counter() - started:.0f} s in all. Open [bold]{report}[/bold]")
    console.print(f"every figure, by class and subgroup: {out / 'evaluation' / 'pretrained' / 'report.html'}")
    return report


def make_studies(folder: Path, counts: dict[str, int], seed: int, console: Console) -> Path:
    """Write synthetic studies, unless they are there already."""
    if not (folder / "manifest.parquet").exists():
        console.print(f"drawing {sum(counts.values())} synthetic studies")
        write_dataset(folder, counts, seed=seed, size=IMAGE_SIZE, workers=min(os.cpu_count() or 1, 8))
    return folder


def judge(
    run: Path, data: Path, out: Path, console: Console, protocols: tuple[str, ...] = PROTOCOLS
) -> dict[str, Any]:
    """Figures of a run on synthetic studies, of a randomly initialised twin, and their paired differences."""
    model = load(run)
    pairs = [(load_protocol(name), data) for name in protocols]
    folder, options = out / "evaluation", EvaluateOptions(fractions=(FRACTION,), device="auto")
    rows = {}
    for name, encoder in (("pretrained", str(run)), ("random", f"random:{run}")):
        judged = open_encoder(encoder, seed=model.recipe.training.seed + 1)
        judgement = judge_encoder(judged, pairs, folder / name, options, console)
        if judgement.outcome.failures:
            raise UserError("; ".join(": ".join(failure) for failure in judgement.outcome.failures))
        rows[name] = judgement.rows
    comparison = compare_folders(folder / "pretrained", folder / "random")
    write_comparison_rows(folder / "comparison", comparison)
    write_comparison(folder / "comparison", comparison)
    test = read_study_set(data, "test", model)
    kept = read_records(folder / "pretrained", rows["pretrained"])
    results = summarise_judgements(rows["pretrained"], rows["random"], comparison, kept)
    counts = {str(split): int(count) for split, count in read_manifest(data)["split"].value_counts().items()}
    return results | {"report_use": report_use(model, test) if model.rebuilds else None, "counts": counts}


def _print_results(results: dict[str, Any], console: Console) -> None:
    table = Table(title=f"{results['counts']['test']} test studies (95 % intervals)")
    for heading in ("", "random", "pretrained", "difference"):
        table.add_column(heading, justify="left" if heading == "" else "right")
    for measure in MEASURES:
        columns = [results[column] for column in ("random", "pretrained", "difference")]
        if measure.key in results["pretrained"]:
            table.add_row(measure.name, *(_text(column[measure.key], 3) for column in columns))
    console.print(table)
    if results["report_use"]:
        difference, none = (_text(results["report_use"][f"difference{end}"], 4) for end in ("", "_none"))
        console.print(f"L1 inside hidden findings, another study's report minus the right one: {difference}")
        console.print(f"L1 inside hidden findings, no report minus the right one: {none}")


def _text(values: Mapping[str, float | None], digits: int) -> str:
    """`0.912 (0.897 to 0.926)`, or in words that there is no interval."""
    return interval_text(values["value"], values["low"], values["high"], f"{{:.{digits}f}}".format, "no interval")
