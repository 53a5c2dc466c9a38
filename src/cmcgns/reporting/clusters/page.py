"""`cmcgns clusters`: one page about the cluster bank of a finished run, and the same as tables."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cmcgns.common.errors import UserError
from cmcgns.common.files import make_folder, write_text
from cmcgns.common.page import page_template
from cmcgns.pretrained import Pretrained, load
from cmcgns.reporting.clusters.drawings import colours, draw_course, draw_map, draw_sizes
from cmcgns.reporting.clusters.history import read_history
from cmcgns.reporting.clusters.members import Cluster, describe_clusters, distinct_sentences
from cmcgns.reporting.clusters.purity import ENOUGH, LabelShare, label_extremes, label_shares, read_labels
from cmcgns.reporting.clusters.quality import MEANINGS, measure_quality
from cmcgns.reporting.clusters.sentence_map import polarity, principal_plane
from cmcgns.reporting.clusters.sentences import ClusteredSentences, SplitImages, cluster_sentences, read_split
from cmcgns.reporting.clusters.tables import write_sentences, write_tables
from cmcgns.reporting.run_page.training import bank_facts, bank_start, lacks_bank
from cmcgns.training.cluster_log import SentenceOracle
from cmcgns.training.journal import read_metrics
from cmcgns.training.run_folder import RunFolder

PAGE = "clusters.html"
_CARDS, _WORDINGS = 24, 5
_VECTORS = {
    "text": "the sentence's own vector z1",
    "cross_modal": "what the sentence sees in its image, z2",
    "centred": "the sum of the sentence's own vector z1 and what it sees in its image, z2, each less its mean",
}


def write_clusters(
    run: Path,
    manifest: Path,
    out: Path,
    *,
    split: str | None = None,
    images: Path | None = None,
    oracle: SentenceOracle | None = None,
) -> Path:
    """Write the page of a run's clusters: one HTML file that needs nothing else, with csv and JSON beside it.

    Args:
        run: folder of a finished run.
        manifest: table or folder of pairs.
        out: folder to fill with `clusters.html`, `clusters.json`, `clusters.csv` and `sentences.csv`.
        split: whose sentences are shown; by default that of the run's validation.
        images: folder where the table's image paths start; by default as :func:`table_settings` says.
        oracle: what a sentence of synthetic studies says; asked for these alone.

    Returns:
        Path of `clusters.html`.

    Raises:
        UserError: no finished run, a run without clusters, data that cannot be read, no such split, or a folder that
            cannot be written.
    """
    model = open_bank(run)
    folder = RunFolder(run)
    records = read_metrics(folder.metrics) if folder.metrics.is_file() else []
    assert model.method is not None  # else there is no bank
    history = read_history(records, model.method.bank.clusters, folder)  # damage is said before minutes are spent
    shown = read_split(model, manifest, split, images)
    labels = read_labels(shown.frame, shown.source)
    found = cluster_sentences(model, shown)
    clusters = describe_clusters(model.method.bank, found)
    shares = [label_shares(found, place, labels) for place in range(len(clusters))]
    distinct = distinct_sentences(found)
    plane = principal_plane(distinct.vectors)
    synthetic = bool((shown.frame["dataset"] == "phantom").all())
    known = oracle if synthetic else None
    polarities = [polarity(text, known) for text in distinct.texts]
    quality = measure_quality(found, known)
    chosen = colours(clusters)
    about = _about(model, shown, found)
    make_folder(out)
    write_tables(out, about | {"quality": _as_columns(quality)}, clusters, shares, labels, history)
    write_sentences(out, distinct, plane, polarities)
    page = page_template("cmcgns.reporting.clusters", "clusters.html.j2", style="clusters.css", trim=True).render(
        about=about,
        of_images=_of_images(shown),
        trained=_trained(shown),
        facts=bank_facts(model.method.bank, torch.from_numpy(found.cluster)),
        start=bank_start(records),
        cards=_cards(clusters, shares),
        first=_CARDS,
        empty=[cluster for cluster in clusters if not cluster.sentences],
        extremes=label_extremes(shares, labels),
        quality=[(*MEANINGS[name], *values) for name, values in quality.items()],
        colours=chosen,
        sizes=draw_sizes(clusters),
        course=draw_course(history, chosen),
        map=draw_map(plane, distinct, polarities, chosen) if len(distinct) > 2 else None,
        explained=plane.explained,
        polarities=[kind for kind in ("states", "denies", "neither") if kind in polarities],
        vectors=_VECTORS,
        settings=model.recipe.objective,
        enough=ENOUGH,
        synthetic=synthetic,
    )
    write_text(out / PAGE, page)
    return out / PAGE


def check_run(run: Path) -> None:
    """Whether a path is a run's, before anything is made in it.

    Raises:
        UserError: no run folder; another kind of encoder, which has no clusters.
    """
    kind = str(run).partition(":")[0]
    if kind in ("random", "imagenet") and not run.exists():
        raise UserError(
            f"clusters {run}: only a run has clusters, no {kind} encoder: give the folder of a finished run"
        )
    RunFolder(run).read_recipe()


def open_bank(run: Path) -> Pretrained:
    """A finished run that has clusters.

    Raises:
        UserError: no run folder, not finished, or no clusters in it; says why.
    """
    check_run(run)
    model = load(run)
    if reason := lacks_bank(model):
        raise UserError(f"{run} has no clusters to show. {reason}")
    return model


def _about(model: Pretrained, shown: SplitImages, found: ClusteredSentences) -> dict[str, Any]:
    """What page and tables say of run and data."""
    bank = model.recipe.objective.bank
    return {
        "run": model.recipe.name,
        "data": shown.source.name,
        "split": shown.split,
        "images": len(shown.frame),
        "images_of_split": shown.total,
        "trained_on": shown.trained,
        "sentences": len(found),
        "distinct": len(found.texts),
        "local": model.recipe.objective.local,
        "source": bank.source,
        "assigned_by": bank.source if model.recipe.objective.local == "query_matched" else "text",
    }


def _as_columns(quality: Mapping[str, tuple[float, float]]) -> dict[str, dict[str, float | None]]:
    """Figures as clusters.json has them."""
    return {
        name: {"value": value, "chance": None if math.isnan(chance) else chance}
        for name, (value, chance) in quality.items()
    }


def _of_images(shown: SplitImages) -> str:
    """How many images of the split are shown, in words."""
    count, total = len(shown.frame), shown.total
    return f"{count:,} images" if count == total else f"the first {count:,} of {total:,} images"


def _trained(shown: SplitImages) -> str:
    """Whether the run has trained on them, in words."""
    if shown.trained is None:
        return "The run has no seen.parquet, so they may have been trained on."
    if shown.trained in (0, len(shown.frame)):
        return f"The run was trained on {'all' if shown.trained else 'none'} of them."
    return f"The run was trained on {shown.trained:,} of them."


def _cards(clusters: list[Cluster], shares: list[list[LabelShare]]) -> list[dict[str, Any]]:
    """The clusters that hold a shown sentence, the fullest first, each with the labels that stand out."""
    order = sorted(range(len(clusters)), key=lambda place: (-clusters[place].share, place))
    return [
        {
            "cluster": clusters[place],
            "wordings": clusters[place].wordings[:_WORDINGS],
            "more": len(clusters[place].wordings) - _WORDINGS,
            "labels": _outstanding(shares[place]),
        }
        for place in order
        if clusters[place].sentences
    ]


def _outstanding(shares: list[LabelShare]) -> list[LabelShare]:
    """The two labels that are most above their base rate and the one that is most below."""
    known = [share for share in shares if share.images >= ENOUGH]
    above = [share for share in known if share.lift > 1][:2]
    return above + [share for share in known[-1:] if share.lift < 1]
