"""What `cmcgns evaluate`, `compare` and `protocols show` do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from cmcgns.common.errors import UserError
from cmcgns.evaluation.compare import compare_folders, write_comparison_rows
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.figures import PRIMARY, figures_of, reliability_of
from cmcgns.evaluation.open_encoder import open_encoder
from cmcgns.evaluation.progress import Progress
from cmcgns.evaluation.protocols import EvaluationProtocol
from cmcgns.evaluation.results import ResultRow, write_results
from cmcgns.evaluation.run import EvaluateOptions, Outcome, run_protocols
from cmcgns.evaluation.select import Pair
from cmcgns.evaluation.store import read_protocol
from cmcgns.reporting.evaluation.comparison import write_comparison
from cmcgns.reporting.evaluation.report import write_evaluation
from cmcgns.reporting.evaluation.terminal import differences_table, figures_table, share_text
from cmcgns.training.run_folder import describe_environment


def run_evaluation(
    encoder: str,
    pairs: Sequence[Pair],
    out: Path,
    options: EvaluateOptions,
    normalise: str | None = None,
    image_size: int | None = None,
) -> int:
    """Judge an encoder, write `results.jsonl` and the report, print the figures that tables show.

    Args:
        encoder: as :func:`cmcgns.evaluation.open_encoder.open_encoder` takes it.
        pairs: protocols, each with the dataset that it is run on.
        out: folder of results.
        options: fractions, seeds, leakage, device.
        normalise: of a timm name.
        image_size: of a timm name.

    Returns:
        0, or 1 if a cell failed; the others are kept.
    """
    console = Console(highlight=False)
    judged = open_encoder(encoder, normalise, image_size)
    options = replace(options, device=_device(options.device))
    judgement = judge_encoder(judged, pairs, out, options, console)
    _print(judgement, console)
    return 1 if judgement.outcome.failures or not judgement.rows else 0


@dataclass(frozen=True)
class Judgement:
    """What an evaluation leaves behind, besides its folder.

    Attributes:
        rows: of `results.jsonl`.
        outcome: what failed, what was skipped.
        report: path of the page.
    """

    rows: list[ResultRow]
    outcome: Outcome
    report: Path


def judge_encoder(
    encoder: FrozenEncoder, pairs: Sequence[Pair], out: Path, options: EvaluateOptions, console: Console
) -> Judgement:
    """Run protocols, compute every figure, write `results.jsonl` and the report.

    Args:
        encoder: who is judged.
        pairs: protocols, each with the dataset that it is run on.
        out: folder of results of this encoder; what is there already is kept.
        options: fractions, seeds, leakage, device.
        console: for progress.
    """
    try:
        with Progress(console) as progress:
            outcome = run_protocols(encoder, pairs, out, options, progress)
            progress.say("computing intervals")
            rows = figures_of(out, outcome.failures)
    except KeyboardInterrupt:
        console.print(f"interrupted: {out} keeps what is finished, and the same command goes on", markup=False)
        raise
    write_results(out, rows)
    report = write_evaluation(
        out,
        rows,
        protocols_in(out, rows),
        outcome.failures,
        outcome.skipped,
        describe_environment(),
        reliability_of(out, dict.fromkeys(row.protocol for row in rows)),
    )
    return Judgement(rows, outcome, report)


def run_comparison(first: Path, second: Path, out: Path | None) -> None:
    """Paired differences of two judged encoders, printed and, with `out`, written."""
    console = Console(highlight=False)
    comparison = compare_folders(first, second)
    console.print(differences_table(comparison, console.width))
    for line in dict.fromkeys(f"{row.protocol}: {row.note}" for row in comparison.rows if row.primary and row.note):
        console.print(line, markup=False)
    for line in comparison.only_in_one:
        console.print(line, markup=False)
    if out is not None:
        write_comparison_rows(out, comparison)
        console.print(f"Open [bold]{escape(str(write_comparison(out, comparison)))}[/bold]")


def protocols_in(out: Path, rows: Sequence[ResultRow]) -> dict[str, EvaluationProtocol]:
    """The protocols of result rows, as they were when they were run."""
    names = dict.fromkeys(row.protocol for row in rows)
    return {name: EvaluationProtocol.model_validate(read_protocol(out, name)["settings"]) for name in names}


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, colon, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (colon and not number.isdecimal()):
        raise UserError(f"--device {name}: auto, cpu, cuda or cuda:NUMBER is expected")
    if int(number or 0) >= (torch.cuda.device_count() if kind == "cuda" else 1):
        raise UserError(f"--device {name}: there is no such device here")
    return name


def _print(judgement: Judgement, console: Console) -> None:
    shown = [row for row in judgement.rows if row.primary and row.seed is None and not row.group]
    if shown:
        console.print(figures_table(shown, console.width))
    remarks: list[str] = []  # allowed leakage, and why there is no figure or no interval
    for row in shown:
        remarks += [f"{row.protocol}: LEAKAGE, {row.leakage}"] if row.leakage else []
        said = row.note and (row.low is None or PRIMARY in row.note)
        remarks += [f"{row.protocol} {share_text(row.fraction)}: {row.note}"] if said else []
    for line in dict.fromkeys(remarks):
        console.print(line, markup=False)
    for protocol, reason in judgement.outcome.skipped:
        console.print(f"skipped {protocol}: {reason}", markup=False)
    for protocol, cell, message in judgement.outcome.failures:
        where = ", ".join(part for part in (protocol, cell) if part)
        console.print(f"FAILED {where}: {message}", markup=False)
    console.print(f"Open [bold]{escape(str(judgement.report))}[/bold]")
