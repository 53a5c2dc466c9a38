"""The command line's verbs for data: prepare, check, phantom."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from cmcgns.common.errors import UserError

_MOST_WORKERS = 1024  # processes on one machine
_MOST_STUDIES = 10_000_000  # to be drawn; more is a slip of the keyboard

app = typer.Typer()
phantom = typer.Typer(name="phantom", help="Draw synthetic studies.", no_args_is_help=True)
app.add_typer(phantom)


@app.command()
def prepare(
    name: Annotated[str, typer.Argument(help="Dataset: mimic-cxr, openi, chexpert, rsna, …, or table.")],
    root: Annotated[Path, typer.Option(help="The dataset's folder, as downloaded and unpacked.")],
    out: Annotated[Path, typer.Option(help="Folder for manifest, images and report; a second call goes on.")],
    size: Annotated[int, typer.Option(help="Long side of the stored images in pixels.")] = 512,
    lossless: Annotated[bool, typer.Option(help="PNG (8 or 16 bit) instead of JPEG of quality 95.")] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, max=_MOST_WORKERS, help="Processes; by default one a core.")
    ] = None,
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
    images: Annotated[
        Path | None, typer.Option(help="Folder where image_path starts, for `table`; by default the table's own.")
    ] = None,
    separator: Annotated[
        str, typer.Option(help="Of `table`, where it is not found: a mark, or comma, semicolon, tab, bar.")
    ] = "",
    encoding: Annotated[str, typer.Option(help="Of `table`, where it is not UTF-8 or UTF-16: cp1252, …")] = "",
) -> None:
    """Read a public dataset's own folder (or your table) into a manifest with resized images."""
    from cmcgns.data.delimited import TextFormat
    from cmcgns.prepare.run import PrepareOptions, read_column_names
    from cmcgns.prepare.run import prepare as run

    if engine == "ray" and workers is not None:
        raise UserError(
            f"--workers {workers} has no effect with --engine ray, which uses what the cluster has: leave out one"
        )
    form = TextFormat(separator, encoding)
    options = PrepareOptions(
        split, seed, read_column_names(column or []), rules, dataset, images, form,
        size=size, lossless=lossless, workers=workers or os.cpu_count() or 1, engine=engine, shards=shards,
    )  # fmt: skip
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
    from cmcgns.check import run

    if rules:
        run.print_rules()
        return
    if not folders:
        raise UserError("check: name at least one prepared folder (or manifest)")
    raise typer.Exit(run.check_folders(folders, images, skip or [], out, fix))


@phantom.command("studies")
def phantom_studies(
    out: Annotated[Path, typer.Option(help="Folder for manifest, images and masks.")],
    train: Annotated[int, typer.Option(max=_MOST_STUDIES, help="Studies of the training split.")] = 2000,
    val: Annotated[int, typer.Option(max=_MOST_STUDIES, help="Studies of the validation split.")] = 200,
    test: Annotated[int, typer.Option(max=_MOST_STUDIES, help="Studies of the test split.")] = 500,
    size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 128,
    seed: Annotated[int, typer.Option(min=0, help="Names the series of studies.")] = 0,
    workers: Annotated[int, typer.Option(min=1, max=_MOST_WORKERS, help="Processes.")] = os.cpu_count() or 1,
    level: Annotated[
        Literal["plain", "hard"],
        typer.Option(help="hard: small faint findings among distractors, which reports leave out at times."),
    ] = "plain",
) -> None:
    """Draw studies with reports, labels, boxes and masks: a prepared dataset that needs no patients."""
    from cmcgns.phantom import write_dataset

    counts = {"train": train, "val": val, "test": test}
    typer.echo(f"written: {write_dataset(out, counts, seed=seed, size=size, workers=workers, level=level)}")


@phantom.command("tree")
def phantom_tree(
    name: Annotated[str, typer.Argument(help="Dataset, as in `prepare`: mimic-cxr, openi, chexpert, rsna, …")],
    out: Annotated[Path, typer.Option(help="Folder to fill; new or empty.")],
    studies: Annotated[int, typer.Option(max=_MOST_STUDIES, help="Studies, 8 or more.")] = 100,
    size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 128,
    seed: Annotated[int, typer.Option(min=0, help="Names the series of studies.")] = 0,
) -> None:
    """Draw studies into a public dataset's own layout, to try `prepare` without the dataset."""
    from cmcgns.phantom.trees import write_tree

    typer.echo(f"written: {write_tree(name, out, studies, seed, size)}")
