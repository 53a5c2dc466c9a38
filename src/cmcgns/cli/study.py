"""The command line's verb for studies."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cmcgns.common.errors import UserError

app = typer.Typer()


@app.command()
def study(
    name: Annotated[str, typer.Argument(metavar="STUDY", help="Name of a shipped study, or path of a YAML file.")],
    out: Annotated[Path, typer.Option(help="Folder of the study; a second call does what is missing.")],
    cells: Annotated[str | None, typer.Option(help="Names between commas; by default all.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds of the training between commas; by default all.")] = None,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="ray: spread over a Ray cluster whose machines share --out.")
    ] = "local",
    accelerator: Annotated[
        Literal["auto", "cpu", "cuda", "mps"] | None, typer.Option(help="Where to compute; by default auto.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the cells and what is done; do nothing.")] = False,
    table_only: Annotated[
        bool, typer.Option("--table-only", help="Only write the table, from the results that are there.")
    ] = False,
) -> None:
    """Train and judge every cell of an ablation with several seeds; one table with paired differences."""
    from cmcgns.study.load import load_plan

    plan = load_plan(name)
    from cmcgns.study import run as program

    chosen = tuple(part.strip() for part in cells.split(",")) if cells is not None else ()
    if table_only and (cells is not None or seeds is not None or dry_run or engine != "local" or accelerator):
        raise UserError("--table-only: the table is of all results that are there: leave out the other options")
    options = program.StudyOptions(chosen, _numbers(seeds), engine, accelerator or "auto")
    if dry_run:
        for line in program.describe_study(plan, out, options):
            typer.echo(line)
    elif table_only:
        typer.echo(f"written: {program.write_study_table(plan, out)}")
    else:
        program.run_study(plan, out, options)


def _numbers(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",")) if text is not None else ()
    except ValueError:
        raise UserError(f"--seeds {text}: whole numbers between commas are expected, e.g. 0,1") from None
