"""What `cmcgns evaluate` and `compare` do: judge, write the report, print tables."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from cmcgns.common.claim import claimed
from cmcgns.common.errors import UserError
from cmcgns.common.files import make_folder
from cmcgns.common.processes import Stopped
from cmcgns.evaluation.compare import compare_folders, write_comparison_rows
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.figures import PRIMARY, figures_of, reliability_of
from cmcgns.evaluation.open_encoder import open_encoder
from cmcgns.evaluation.protocols import EvaluationProtocol
from cmcgns.evaluation.results import ResultRow, read_encoder, read_protocol, write_results
from cmcgns.evaluation.run import EvaluateOptions, Outcome, device_of, progress_bars, run_protocols
from cmcgns.evaluation.select import Pair
from cmcgns.metrics.classes import LEFT_OUT, NOT_LEARNT
from cmcgns.metrics.classification import ONE_SCORE
from cmcgns.metrics.interval_table import NARROW
from cmcgns.reporting.evaluation.comparison import write_comparison
from cmcgns.reporting.evaluation.console import differences_table, figures_table, share_text
from cmcgns.reporting.evaluation.report import write_evaluation
from cmcgns.training.run_folder import describe_environment

_TO_BE_SAID = (PRIMARY, LEFT_OUT, NOT_LEARNT, ONE_SCORE, NARROW)  # parts of a note


def run_evaluation(
    encoder: str,
    pairs: Sequence[Pair],
    out: Path,
    options: EvaluateOptions,
    normalise: str | None = None,
    image_size: int | None = None,
    prefix: str = "",
) -> int:
    """Judge an encoder, write `results.jsonl` and the report, print the figures that tables show.

    Returns:
        0, or 1 if a cell failed; the others are kept.
    """
    console = Console(highlight=False)
    judged = open_encoder(encoder, normalise, image_size, prefix=prefix)
    judgement = judge_encoder(judged, pairs, out, options, console)
    print_judgement(judgement, console)
    return 1 if judgement.outcome.failures or not judgement.rows else 0


@dataclass(frozen=True)
class Judgement:
    """What an evaluation leaves behind, besides its folder."""

    rows: list[ResultRow]
    outcome: Outcome
    report: Path


def judge_encoder(
    encoder: FrozenEncoder, pairs: Sequence[Pair], out: Path, options: EvaluateOptions, console: Console
) -> Judgement:
    """Run protocols, compute every figure, write `results.jsonl` and the report.

    Raises:
        UserError: no such device, another process works in the folder, or it cannot be written to.
    """
    options = replace(options, device=device_of(options.device))
    with claimed(out, "evaluate"):
        return _judge(encoder, pairs, out, options, console)


def _judge(
    encoder: FrozenEncoder, pairs: Sequence[Pair], out: Path, options: EvaluateOptions, console: Console
) -> Judgement:
    try:
        with progress_bars(console) as progress:
            outcome = run_protocols(encoder, pairs, out, options, progress)
            console.print("computing intervals")
            rows = figures_of(out, outcome.failures)
    except (KeyboardInterrupt, Stopped):
        console.print(f"interrupted: {out} keeps what is finished, and the same command goes on", markup=False)
        raise
    return _judgement(out, rows, outcome)


def run_figures(out: Path) -> int:
    """Every figure once more from the predictions that a folder keeps; no image, no encoder is needed.

    Args:
        out: folder of `cmcgns evaluate`; its `results.jsonl`, tables and report are written anew.

    Returns:
        0, or 1 if predictions are damaged, or there are none.

    Raises:
        UserError: not such a folder.
    """
    console, outcome = Console(highlight=False), Outcome()
    read_encoder(out)  # before a lock is put into what may be another folder
    with claimed(out, "figures", option=""):
        rows = figures_of(out, outcome.failures)
        print_judgement(_judgement(out, rows, outcome), console)
    return 1 if outcome.failures or not rows else 0


def _judgement(out: Path, rows: list[ResultRow], outcome: Outcome) -> Judgement:
    """Write what figures are shown in."""
    write_results(out / "results.jsonl", rows)
    names = dict.fromkeys(row.protocol for row in rows)
    as_run = {name: EvaluationProtocol.model_validate(read_protocol(out, name)["settings"]) for name in names}
    curves = reliability_of(out, names)
    report = write_evaluation(out, rows, as_run, outcome.failures, outcome.skipped, describe_environment(), curves)
    return Judgement(rows, outcome, report)


def run_comparison(first: Path, second: Path, out: Path | None) -> None:
    """Paired differences of two judged encoders, printed and, with `out`, written."""
    console = Console(highlight=False)
    if os.path.realpath(first) == os.path.realpath(second):
        raise UserError(f"{first} is named twice: name the folders of two evaluations")
    if out is not None:
        make_folder(out)
    comparison = compare_folders(first, second)
    console.print(differences_table(comparison, console.width))
    for line in dict.fromkeys(f"{row.protocol}: {row.note}" for row in comparison.rows if row.primary and row.note):
        console.print(line, markup=False)
    for line in comparison.only_in_one:
        console.print(line, markup=False)
    if out is not None:
        with claimed(out, "compare"):
            write_comparison_rows(out, comparison)
            console.print(f"Open [bold]{escape(str(write_comparison(out, comparison)))}[/bold]")


def print_judgement(judgement: Judgement, console: Console) -> None:
    """Figures that tables show, then what is to be known of them, and what is missing."""
    shown = [row for row in judgement.rows if row.primary and row.seed is None and not row.group]
    if shown:
        console.print(figures_table(shown, console.width))
    for remark, about in remarks_on(shown).items():
        console.print(f"{', '.join(dict.fromkeys(about))}: {remark}", markup=False)
    for protocol, reason in judgement.outcome.skipped:
        console.print(f"skipped {protocol}: {reason}", markup=False)
    for protocol, cell, message in judgement.outcome.failures:
        where = ", ".join(part for part in (protocol, cell) if part)
        console.print(f"FAILED {where}: {message}", markup=False)
    console.print(f"Open [bold]{escape(str(judgement.report))}[/bold]")


def remarks_on(shown: Sequence[ResultRow]) -> dict[str, list[str]]:
    """Allowed leakage, classes left out, why there is no figure or no proper interval; each with what it is about."""
    remarks: dict[str, list[str]] = {}
    for row in shown:
        share = f" ({share_text(row.fraction)} %)" if row.fraction is not None else ""
        if row.leakage:
            remarks.setdefault(f"LEAKAGE, {row.leakage}", []).append(row.protocol)
        if row.note and (row.low is None or any(sign in row.note for sign in _TO_BE_SAID)):
            remarks.setdefault(row.note, []).append(row.protocol + share)
    return remarks
