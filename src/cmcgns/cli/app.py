"""The command line: its root, the demo, and how it ends."""

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

import cmcgns
from cmcgns.cli import data, evaluation, study, training
from cmcgns.common.errors import UserError
from cmcgns.common.files import explain, is_about_a_place
from cmcgns.common.processes import Stopped, stopping_at_signals
from cmcgns.common.safe_text import without_controls

app = typer.Typer(
    name="cmcgns",
    help="Pretrain chest-radiograph encoders from reports (CM-CGNS).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

for group in (data, training, evaluation, study):
    app.add_typer(group.app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(cmcgns.__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Pretrain chest-radiograph encoders from reports (CM-CGNS)."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the demo.")] = Path("demo"),
    recipe: Annotated[str, typer.Option(help=training.RECIPE)] = "demo",
    set_: training.Set = None,
    full: Annotated[bool, typer.Option("--full", help="Also k-NN, detection and segmentation.")] = False,
) -> None:
    """Draw synthetic studies, pretrain on them, judge the encoder, write a report."""
    from cmcgns.settings.recipe import load_recipe

    settings = load_recipe(recipe, set_ or [])
    from cmcgns import demo as program

    program.run_demo(settings, out, full=full)


def main() -> None:
    """Entry point: user errors are printed without a traceback."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("faster_coco_eval", "httpx", "lightning", "lightning.fabric", "matplotlib", "PIL"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        with stopping_at_signals():
            app()
    except UserError as error:
        typer.echo(f"error: {without_controls(str(error), keep=chr(10))}", err=True)
        sys.exit(2)
    except OSError as error:
        if not is_about_a_place(error) or error.filename is None:
            raise
        typer.echo(f"error: {explain(error, error.filename, 'used')}", err=True)
        sys.exit(2)
    except Stopped as error:
        if int(os.environ.get("LOCAL_RANK", 0)):
            sys.exit(0)  # the first process speaks for all; Lightning would kill it if another one failed
        typer.echo(str(error), err=True)
        sys.exit(128 + error.signal_number)
