"""The command line: one verb, one function."""

import logging
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cmcgns.cli import evaluation
from cmcgns.common.errors import UserError

app = typer.Typer(
    name="cmcgns",
    help="Pretrain chest-radiograph encoders from reports (CM-CGNS).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

bench = typer.Typer(name="bench", help="Measure speed and memory.", no_args_is_help=True)
app.add_typer(bench)
evaluation.register(app)

Data = Annotated[Path, typer.Option(help="Table (csv, parquet) or folder with image paths and reports.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="key=value, for example training.batch_size=32.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(metadata.version("cmcgns"))
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Pretrain chest-radiograph encoders from reports (CM-CGNS)."""


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
    from cmcgns.settings.recipe import load_recipe

    settings = load_recipe(recipe, set_ or [])
    from cmcgns.training import pretrain as engine

    if dry_run and (devices * nodes > 1 or init or resume):
        raise UserError(
            "--dry-run looks at one process and a fresh start: leave out --devices, --nodes, --init, --resume"
        )
    if dry_run:
        from cmcgns.training.pretrain import dry_run as estimate

        _print_figures(estimate(settings, data, accelerator))
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
    full: Annotated[bool, typer.Option("--full", help="Also k-NN, detection and segmentation.")] = False,
) -> None:
    """Draw synthetic studies, pretrain on them, judge the encoder, write a report."""
    from cmcgns.settings.recipe import load_recipe

    settings = load_recipe(recipe, set_ or [])
    from cmcgns import demo as program

    program.run_demo(settings, out, full=full)


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Name of a recipe, or path of a YAML file.")] = None,
    set_: Set = None,
) -> None:
    """List the recipes that come with the package, or show every setting of one with its meaning."""
    from cmcgns.settings.recipe import describe_settings, list_recipes, load_recipe

    if name is not None:
        typer.echo(describe_settings(load_recipe(name, set_ or [])))
        return
    for each in list_recipes():
        typer.echo(each)


@app.command()
def prepare(
    name: Annotated[str, typer.Argument(help="Dataset: mimic-cxr, openi, chexpert, rsna, …, or table.")],
    root: Annotated[Path, typer.Option(help="The dataset's folder, as downloaded and unpacked.")],
    out: Annotated[Path, typer.Option(help="Folder for manifest, images and report; a second call goes on.")],
    size: Annotated[int, typer.Option(help="Long side of the stored images in pixels.")] = 512,
    lossless: Annotated[bool, typer.Option(help="PNG (8 or 16 bit) instead of JPEG of quality 95.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = os.cpu_count() or 1,
    engine: Annotated[Literal["pool", "ray"], typer.Option(help="ray: spread over a Ray cluster.")] = "pool",
    split: Annotated[Literal["v1", "legacy"], typer.Option(help="v1: by patient; legacy: as published.")] = "v1",
    seed: Annotated[int, typer.Option(min=0, help="Of drawn splits.")] = 0,
    rules: Annotated[
        str, typer.Option(help="Rules for sections of reports: english, german, spanish, or a YAML file.")
    ] = "english",
    shards: Annotated[
        int, typer.Option(help="Also write OUT/shards, tar files of so many images, which pretraining streams.")
    ] = 0,
    column: Annotated[
        list[str] | None, typer.Option(help="OURS=THEIRS, for `table`: image_path=Path, label_Edema=edema, …")
    ] = None,
    dataset: Annotated[str, typer.Option(help="Name of the dataset, for `table`; ids start with it.")] = "",
) -> None:
    """Read a public dataset's own folder (or your table) into a manifest with resized images."""
    from cmcgns.prepare.run import PrepareOptions
    from cmcgns.prepare.run import prepare as run

    pairs = [pair.partition("=") for pair in column or []]
    wrong = next(("".join(pair) for pair in pairs if not (pair[0] and pair[2])), None)
    if wrong is not None:
        raise UserError(f"--column {wrong}: OURS=THEIRS is expected, for example image_path=Path")
    columns = {ours: theirs for ours, _, theirs in pairs}
    options = PrepareOptions(size, lossless, workers, engine, split, seed, columns, rules, shards, dataset)
    run(name, root, out, options)


@app.command()
def check(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Prepared folders, or manifests; checked together.")
    ] = None,
    images: Annotated[bool, typer.Option(help="Also open every stored image and mask.")] = True,
    skip: Annotated[list[str] | None, typer.Option(help="Name of a rule that is not run.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for check.html and check.json.")] = None,
    fix: Annotated[bool, typer.Option(help="Write manifest.cleaned.parquet beside each manifest.")] = False,
    rules: Annotated[bool, typer.Option("--list-rules", help="List the rules and stop.")] = False,
) -> None:
    """Look for what makes results untrue; ends with status 1 if there are errors."""
    from cmcgns.check import command

    if rules:
        command.list_rules()
        return
    if not folders:
        raise UserError("check: name at least one prepared folder (or manifest)")
    raise typer.Exit(command.run(folders, images, skip or [], out, fix))


@bench.command("step")
def bench_step(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe, or path of a YAML file.")],
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    batch: Annotated[int | None, typer.Option(min=2, help="Studies a micro-step; the recipe's by default.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps to time, after a warm-up.")] = 10,
    stage: Annotated[
        Literal["alignment", "reconstruction"] | None,
        typer.Option(help="By default reconstruction, if the recipe has epochs of it."),
    ] = None,
    report_config: Annotated[
        Literal["bert-base"] | None,
        typer.Option(help="Build this report encoder at random, whatever the recipe names (needs no network)."),
    ] = None,
    set_: Set = None,
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file too.")] = None,
) -> None:
    """Time the whole training step beside its encoders alone, on random data."""
    from dataclasses import asdict

    from cmcgns.settings.recipe import load_recipe

    settings = load_recipe(recipe, set_ or [])
    from cmcgns.common.files import write_json
    from cmcgns.training import bench as program

    figures = program.bench_step(
        settings, device=device, batch_size=batch, steps=steps, stage=stage, report_config=report_config
    )
    typer.echo(program.describe(figures))
    if json is not None:
        write_json(json, asdict(figures))


def _print_figures(figures: dict[str, Any]) -> None:
    for name, value in figures.items():
        if name == "hours" and value < 1:
            name, value = "minutes", 60 * value
        typer.echo(f"{name.replace('_', ' '):<36}{value:,.2f}")


def main() -> None:
    """Entry point: user errors are printed without a traceback."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("faster_coco_eval", "httpx", "lightning", "lightning.fabric", "matplotlib", "PIL"):
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
        if int(os.environ.get("LOCAL_RANK", 0)):
            sys.exit(0)  # the first process speaks for all; Lightning would kill it if another one failed
        typer.echo(str(error), err=True)
        sys.exit(128 + number)
