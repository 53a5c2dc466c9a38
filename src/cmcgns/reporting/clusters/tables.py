"""The clusters for programs: clusters.json, clusters.csv and sentences.csv."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cmcgns.common.files import write_json
from cmcgns.common.spreadsheet import write_spreadsheet
from cmcgns.reporting.clusters.inspection import Inspection
from cmcgns.reporting.clusters.members import Cluster
from cmcgns.reporting.clusters.purity import LabelShare

_LISTED = 20  # wordings of a cluster in clusters.json; sentences.csv has all sentences


def write_clusters_tables(out: Path, seen: Inspection) -> None:
    """Write `clusters.json`, all that the page holds, and `clusters.csv`, a row a cluster.

    Args:
        out: folder.
        seen: the clusters.
    """
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


def write_sentences(out: Path, seen: Inspection) -> None:
    """Write `sentences.csv`: every distinct sentence, the frequent ones first.

    Args:
        out: folder.
        seen: the clusters.
    """
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
