"""The command line's verbs for training: pretrain, recipes, bench."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cmcgns.common.errors import UserError

app = typer.Typer()
bench = typer.Typer(name="bench", help="Measure speed and memory.", no_args_is_help=True)
app.add_typer(bench)

RECIPE = "Name of a recipe, or path of a YAML file; A+B lays B over A."
Recipe = Annotated[str, typer.Argument(help=RECIPE)]
Set = Annotated[list[str] | None, typer.Option("--set", help="key=value, for example training.batch_size=32.")]


@app.command()
def pretrain(
    recipe: Recipe,
    data: Annotated[Path, typer.Option(help="Table (csv, parquet) or folder with image paths and reports.")],
    out: Annotated[Path | None, typer.Option(help="Run folder; new, unless --resume.")] = None,
    set_: Set = None,
    resume: Annotated[bool, typer.Option(help="Go on with an interrupted run.")] = False,
    init: Annotated[Path | None, typer.Option(help="Run folder whose weights a new run starts from.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Try every phase, then memory, speed and time of the whole.")] = False,
    devices: Annotated[int, typer.Option(min=1, help="Processes on this machine, one a GPU.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = 1,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Pretrain on pairs of radiographs and reports."""
    from cmcgns.settings.recipe import load_recipe

    settings = load_recipe(recipe, set_ or [])
    if dry_run:
        from cmcgns.training import dry_run as rehearsal

        figures = rehearsal.dry_run(settings, data, accelerator, processes=devices * nodes, resume=resume, init=init)
        typer.echo(rehearsal.describe_estimate(figures))
        return
    if out is None:
        raise UserError("--out RUN is needed (only --dry-run does without)")
    from cmcgns.phantom import sentence_truth
    from cmcgns.training import pretrain as engine

    engine.pretrain(
        settings, data, out,
        resume=resume, init=init, devices=devices, nodes=nodes, accelerator=accelerator, oracle=sentence_truth,
    )  # fmt: skip


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help=RECIPE)] = None,
    set_: Set = None,
) -> None:
    """List the recipes that come with the package, or show every setting of one with its meaning."""
    from cmcgns.settings.config import ObjectiveSettings
    from cmcgns.settings.recipe import describe_settings, list_recipes, load_recipe

    if name is not None:
        recipe = load_recipe(name, set_ or [])
        if recipe.objective.name == ObjectiveSettings().name and not recipe.objective.options:
            typer.echo(describe_settings(recipe))
        else:
            from cmcgns.objectives.objective import describe_read  # torch takes seconds to import

            typer.echo(describe_read(recipe))
        return
    if set_:
        raise UserError("--set changes a recipe: name it, for example `cmcgns recipes default --set KEY=VALUE`")
    for each in list_recipes():
        typer.echo(each)


@bench.command("step")
def bench_step(
    recipe: Recipe,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    batch: Annotated[
        int | None, typer.Option(min=2, max=2**16, help="Studies a micro-step; the recipe's by default.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, max=10**6, help="Steps to time, after a warm-up.")] = 10,
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
    from cmcgns.common.files import make_folder, write_json
    from cmcgns.training import bench as program

    if json is not None:  # before minutes are spent on what goes into it
        make_folder(json.parent, "--json")
        if json.is_dir():
            raise UserError(f"--json {json} is a folder; the name of a file is expected")
    figures = program.bench_step(
        settings, device=device, batch_size=batch, steps=steps, stage=stage, report_config=report_config
    )
    typer.echo(program.describe_figures(figures))
    if json is not None:
        write_json(json, asdict(figures))
