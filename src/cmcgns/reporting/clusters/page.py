"""`cmcgns clusters`: one page about the cluster bank of a finished run, and the same as tables."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cmcgns.common.files import make_folder, write_json, write_text
from cmcgns.common.page import page_template
from cmcgns.common.safe_text import write_spreadsheet
from cmcgns.reporting.clusters.bank import bank_facts, bank_start
from cmcgns.reporting.clusters.drawings import CANVAS, colours, draw_course, draw_map, draw_sizes
from cmcgns.reporting.clusters.inspection import Inspection, inspect_clusters
from cmcgns.reporting.clusters.members import Cluster, fullest
from cmcgns.reporting.clusters.purity import ENOUGH, LabelShare, label_extremes
from cmcgns.reporting.clusters.quality import MEANINGS
from cmcgns.reporting.clusters.sentences import SplitImages
from cmcgns.training.cluster_log import SentenceOracle

PAGE = "clusters.html"
_CARDS, _WORDINGS = 24, 5
_LISTED = 20  # wordings of a cluster in clusters.json; sentences.csv has all sentences
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
        images: folder where the table's image paths start; by default as for :func:`read_table`.
        oracle: what a sentence of synthetic studies says; asked for these alone.

    Returns:
        Path of `clusters.html`.

    Raises:
        UserError: no finished run, a run without clusters, data that cannot be read, no such split, or a folder that
            cannot be written.
    """
    seen = inspect_clusters(run, manifest, split, images, oracle)
    make_folder(out)
    _write_tables(out, seen)
    _write_sentences(out, seen)
    page = page_template("cmcgns.reporting.clusters", "clusters.html.j2", style="clusters.css", trim=True)
    write_text(out / PAGE, page.render(**_facts(seen), **_drawings(seen)))
    return out / PAGE


def _facts(seen: Inspection) -> dict[str, Any]:
    """What the page says in words and tables."""
    return {
        "about": seen.about,
        "of_images": _of_images(seen.shown),
        "trained": _trained(seen.shown),
        "facts": bank_facts(seen.bank, seen.found),
        "start": bank_start(seen.records),
        "cards": _cards(seen.clusters, seen.shares),
        "first": _CARDS,
        "empty": [cluster for cluster in seen.clusters if not cluster.sentences],
        "extremes": label_extremes(seen.shares, seen.labels),
        "quality": [(*MEANINGS[name], *values) for name, values in seen.quality.items()],
        "vectors": _VECTORS,
        "settings": seen.model.recipe.objective,
        "enough": ENOUGH,
        "synthetic": seen.shown.is_synthetic,
    }


def _drawings(seen: Inspection) -> dict[str, Any]:
    """What it draws."""
    chosen, drawable = colours(seen.clusters), len(seen.distinct) > 2
    return {
        "canvas": CANVAS,
        "colours": chosen,
        "sizes": draw_sizes(seen.clusters),
        "course": draw_course(seen.history, chosen),
        "map": draw_map(seen.plane, seen.distinct, seen.polarities, chosen) if drawable else None,
        "explained": seen.plane.explained,
        "polarities": [kind for kind in ("states", "denies", "neither") if kind in seen.polarities],
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
    return [
        {
            "cluster": cluster,
            "wordings": cluster.wordings[:_WORDINGS],
            "more": len(cluster.wordings) - _WORDINGS,
            "labels": _outstanding(shares[cluster.number - 1]),
        }
        for cluster in fullest(clusters)
    ]


def _outstanding(shares: list[LabelShare]) -> list[LabelShare]:
    """The two labels that are most above their base rate and the one that is most below."""
    known = [share for share in shares if share.images >= ENOUGH]
    above = [share for share in known if share.lift > 1][:2]
    return above + [share for share in known[-1:] if share.lift < 1]


def _write_tables(out: Path, seen: Inspection) -> None:
    """Write `clusters.json`, all that the page holds, and `clusters.csv`, a row a cluster."""
    pairs, history = list(zip(seen.clusters, seen.shares, strict=True)), seen.history
    content = seen.about | {
        "base": seen.labels.base,
        "quality": {
            name: {"value": value, "chance": None if math.isnan(chance) else chance}
            for name, (value, chance) in seen.quality.items()
        },
        "clusters": [_entry(cluster, own) for cluster, own in pairs],
        "history": {"steps": history.steps.tolist(), "stages": history.stages, "shares": history.shares.tolist()},
    }
    write_json(out / "clusters.json", content)
    names = list(seen.labels.base)
    header = ["cluster", "state", "share", "sentences", "distinct", "images", "cosine", "nearest"]
    header += [f"{name} {what}" for name in names for what in ("images", "prevalence", "lift")]
    write_spreadsheet(out / "clusters.csv", header, (_row(cluster, own, names) for cluster, own in pairs))


def _entry(cluster: Cluster, shares: Sequence[LabelShare]) -> dict[str, Any]:
    return asdict(cluster) | {
        "distinct": len(cluster.wordings),
        "wordings": [asdict(each) for each in cluster.wordings[:_LISTED]],
        "labels": [asdict(each) for each in shares],
    }


def _row(cluster: Cluster, shares: Sequence[LabelShare], names: Sequence[str]) -> list[object]:
    nearest = cluster.wordings[0].text if cluster.wordings else None
    row: list[object] = [
        cluster.number, cluster.state, cluster.share, cluster.sentences, len(cluster.wordings), cluster.images,
        cluster.cosine, nearest,
    ]  # fmt: skip
    own = {share.label: share for share in shares}
    for name in names:
        share = own.get(name)
        row += [share.images, share.prevalence, share.lift] if share else [0, None, None]
    return row


def _write_sentences(out: Path, seen: Inspection) -> None:
    """Write `sentences.csv`: every distinct sentence, the frequent ones first."""
    header = ["sentence", "count", "cluster", "agreement", "cosine", "x", "y", "polarity"]
    each = seen.distinct
    rows = (
        [
            each.texts[i], int(each.counts[i]), int(each.cluster[i]) + 1, float(each.agreement[i]),
            float(each.cosine[i]), *map(float, seen.plane.points[i]), seen.polarities[i] or None,
        ]
        for i in sorted(range(len(each)), key=lambda i: -int(each.counts[i]))
    )  # fmt: skip
    write_spreadsheet(out / "sentences.csv", header, rows)
