"""The command line's verbs for judging an encoder: evaluate, figures, compare, protocols, report, clusters."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cmcgns.common.errors import UserError

app = typer.Typer()
protocols = typer.Typer(name="protocols", help="What `evaluate` can run.", no_args_is_help=True)
app.add_typer(protocols)

_ENCODER = (
    "RUN (folder of a finished run); NAME@FILE (a timm name and weights of another program); transformers:FOLDER (a "
    "vision transformer or image-text pair of another program); random:RUN; random:NAME; imagenet:NAME (timm's own "
    "weights; downloaded if they are not here)."
)
Run = Annotated[Path, typer.Argument(help="Folder of a finished run.")]
Data = Annotated[Path, typer.Option(help="Table (csv, parquet) or folder with image paths and reports.")]
Images = Annotated[
    Path | None, typer.Option(help="Folder where image paths start; the table's own, or the run's for its table.")
]


@app.command()
def evaluate(
    encoder: Annotated[str, typer.Argument(help=_ENCODER)],
    protocol: Annotated[str, typer.Option(help="Ids or YAML files between commas, or all.")],
    data: Annotated[list[Path], typer.Option(help="Prepared dataset; may be given several times.")],
    out: Annotated[Path, typer.Option(help="Folder of results; a second call computes what is missing.")],
    fractions: Annotated[
        str | None, typer.Option(help="Per cent of the training patients, e.g. 1,10,100; by default the protocol's.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="How many; by default the protocol's.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="key=value of the protocols, e.g. settings.epochs=5.")
    ] = None,
    finetune: Annotated[bool, typer.Option("--finetune", help="Linear protocols train the encoder too.")] = False,
    allow_leakage: Annotated[
        bool,
        typer.Option(help="Go on although training has seen test patients or images; the report says so on top."),
    ] = False,
    normalise: Annotated[
        Literal["half", "imagenet"] | None, typer.Option(help="What a NAME@FILE encoder was trained with.")
    ] = None,
    image_size: Annotated[int | None, typer.Option(min=16, help="Input side of a timm NAME; 224.")] = None,
    prefix: Annotated[
        str, typer.Option(help="Of the encoder's keys in FILE, where it holds several encoders, e.g. teacher.")
    ] = "",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Judge a frozen encoder: classification, detection, segmentation, zero-shot, retrieval, grounding."""
    shares = _fractions(fractions)  # before the imports, which take seconds
    from cmcgns.evaluation.run import EvaluateOptions
    from cmcgns.evaluation.select import choose, refuse_without_effect
    from cmcgns.reporting.evaluation.command import run_evaluation

    options = EvaluateOptions(shares, seeds, allow_leakage, device)
    pairs = choose(protocol, data, set_ or [], finetune)
    refuse_without_effect(pairs, finetune, shares, seeds)
    raise typer.Exit(run_evaluation(encoder, pairs, out, options, normalise, image_size, prefix))


@app.command()
def figures(
    folder: Annotated[Path, typer.Argument(help="Folder of `cmcgns evaluate`.")],
) -> None:
    """Compute every figure of an evaluation once more from the predictions that it keeps, and write its report."""
    from cmcgns.reporting.evaluation.command import run_figures

    raise typer.Exit(run_figures(folder))


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="Folder of `cmcgns evaluate`.")],
    second: Annotated[Path, typer.Argument(help="Another one, on the same test rows.")],
    out: Annotated[Path | None, typer.Option(help="Folder for comparison.html, .md, .csv and .jsonl.")] = None,
) -> None:
    """Paired differences FIRST - SECOND between two judged encoders, on the same patients."""
    from cmcgns.reporting.evaluation.command import run_comparison

    run_comparison(first, second, out)


@app.command()
def report(
    run: Run,
    data: Data,
    out: Annotated[Path | None, typer.Option(help="Folder for report.html and pictures; RUN/report.")] = None,
    images: Images = None,
) -> None:
    """Show what a run learned, on studies that it did not train on: curves, bank, examples, attention."""
    from cmcgns.common.claim import claimed
    from cmcgns.reporting.run_page.report import write_run_page
    from cmcgns.training.run_folder import RunFolder

    RunFolder(run).read_recipe()  # before a folder is made in what may be no run
    folder = out or run / "report"
    with claimed(folder, "report"):
        typer.echo(f"written: {write_run_page(run, data, {}, folder, images)}")


@app.command()
def clusters(
    run: Run,
    data: Data,
    split: Annotated[str | None, typer.Option(help="Whose sentences; by default the run's validation split.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for clusters.html, .json and .csv; RUN/clusters.")] = None,
    images: Images = None,
) -> None:
    """Show the clusters of a run: their sentences, sizes over time, labels, a map. The page quotes reports."""
    from cmcgns.common.claim import claimed
    from cmcgns.phantom import sentence_truth
    from cmcgns.reporting.clusters.inspection import check_run
    from cmcgns.reporting.clusters.page import write_clusters

    check_run(run)  # before a folder is made in what may be no run
    folder = out or run / "clusters"
    with claimed(folder, "clusters"):
        page = write_clusters(run, data, folder, split=split, images=images, oracle=sentence_truth)
        typer.echo(f"written: {page}")


@protocols.command("list")
def list_protocols() -> None:
    """List the protocols that come with the package."""
    from cmcgns.evaluation.protocols import protocol_titles

    for name, title in protocol_titles().items():
        typer.echo(f"{name:<34}{title}")


@protocols.command("show")
def show_protocol(
    name: Annotated[str, typer.Argument(help="Id, e.g. rsna-linear/v1, or a YAML file.")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value.")] = None,
) -> None:
    """Print everything that a protocol says, defaults included."""
    from cmcgns.evaluation.select import describe_protocol

    typer.echo(describe_protocol(name, set_ or []))


def _fractions(text: str | None) -> tuple[float, ...]:
    if text is None:
        return ()
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--fractions {text}: numbers between commas are expected, e.g. 1,10,100") from None
    if not all(0 < value <= 100 for value in values):
        raise UserError(f"--fractions {text}: per cent above 0 and up to 100 are expected")
    return values
