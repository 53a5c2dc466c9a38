"""The command line: one verb, one function."""

import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cmcgns.errors import UserError

app = typer.Typer(
    name="cmcgns",
    help="Pretrain chest-radiograph encoders from reports (CM-CGNS).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Data = Annotated[Path, typer.Option(help="Table (csv, parquet) or folder with image paths and reports.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="key=value, for example training.batch_size=32.")]


@app.command()
def pretrain(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe, or path of a YAML file.")],
    data: Data,
    out: Annotated[Path | None, typer.Option(help="Run folder; new, unless --resume.")] = None,
    set_: Set = None,
    resume: Annotated[bool, typer.Option(help="Go on with an interrupted run.")] = False,
    init: Annotated[Path | None, typer.Option(help="Run folder whose weights a new run starts from.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Two steps, then memory, speed and time of the whole.")] = False,
    devices: Annotated[int, typer.Option(min=1, help="Processes on this machine, one a GPU.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = 1,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Pretrain on pairs of radiographs and reports."""
    from cmcgns.recipe import load_recipe

    settings = load_recipe(recipe, set_ or [])
    from cmcgns.training import pretrain as engine

    if dry_run:
        _print_figures(engine.dry_run(settings, data, accelerator))
        return
    if out is None:
        raise UserError("--out RUN is needed (only --dry-run does without)")
    if resume and init:
        raise UserError("--resume goes on with a run, --init starts a new one: give one of them")
    engine.pretrain(
        settings, data, out,
        resume=resume, init=init, devices=devices, nodes=nodes, accelerator=accelerator,
    )  # fmt: skip


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the demo.")] = Path("demo"),
    recipe: Annotated[str, typer.Option(help="Name of a recipe, or path of a YAML file.")] = "demo",
    set_: Set = None,
) -> None:
    """Draw synthetic studies, pretrain on them, judge the encoder, write a report."""
    from cmcgns.recipe import load_recipe

    settings = load_recipe(recipe, set_ or [])
    from cmcgns import demo as program

    program.run_demo(settings, out)


@app.command()
def recipes() -> None:
    """List the recipes that come with the package."""
    from cmcgns.recipe import list_recipes

    for name in list_recipes():
        typer.echo(name)


def _print_figures(figures: dict[str, Any]) -> None:
    for name, value in figures.items():
        typer.echo(f"{name.replace('_', ' '):<36}{value:,.2f}")


def main() -> None:
    """Entry point: user errors are printed without a traceback."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("httpx", "lightning", "lightning.fabric", "matplotlib", "PIL"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        app()
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except Exception as error:
        number = getattr(error, "signal_number", None)
        if number is None:
            raise
        typer.echo(str(error), err=True)
        sys.exit(128 + number)
