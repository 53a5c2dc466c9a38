"""`cmcgns check`: run the rules, show and write what they found, clean if asked."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from cmcgns.check.fix import fix
from cmcgns.check.output import print_report, write_page, write_report_json
from cmcgns.check.rule import RULES
from cmcgns.check.run import Report, run_checks


def run(folders: Sequence[Path], images: bool, skip: Sequence[str], out: Path | None, clean: bool) -> int:
    """Check, print, write.

    Args:
        folders: prepared folders or manifests.
        images: also open the images.
        skip: rules that are not run.
        out: folder for `check.html` and `check.json`; None writes neither.
        clean: write cleaned manifests.

    Returns:
        The exit status: 1 if there is an error.

    Raises:
        UserError: no manifest, or an unknown rule.
    """
    console = Console()
    report = _with_progress(folders, images, skip)
    print_report(report, console)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_report_json(report, out / "check.json")
        write_page(report, out / "check.html")
        console.print(f"written: {out / 'check.html'}, {out / 'check.json'}", highlight=False)
    if clean:
        for folder in folders:
            cleaned = fix(folder, report)
            left_out = sum(cleaned.left_out.values())
            console.print(
                f"{cleaned.path}: {cleaned.rows:,} rows; {left_out:,} left out, "
                f"boxes of {cleaned.clipped:,} rows clipped (row by row in {cleaned.account})",
                highlight=False,
            )
            if cleaned.rows == 0:
                console.print(
                    f"{cleaned.path} has no row left: these folders hold the same studies", style="bold red"
                )
    return report.exit_code


def _with_progress(folders: Sequence[Path], images: bool, skip: Sequence[str]) -> Report:
    columns = (TextColumn("images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not images) as progress:
        bar = progress.add_task("images", total=None)
        return run_checks(folders, images, skip, lambda count: progress.advance(bar, count))


def list_rules() -> None:
    """Print every rule with its description."""
    table = Table("rule", "what it looks for")
    for name, rule in RULES.items():
        table.add_row(name, rule.description)
    Console().print(table)
