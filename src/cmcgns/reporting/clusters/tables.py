"""The clusters for programs: clusters.json, clusters.csv and sentences.csv."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cmcgns.common.files import write_json
from cmcgns.common.spreadsheet import write_spreadsheet
from cmcgns.reporting.clusters.history import History
from cmcgns.reporting.clusters.members import Cluster, DistinctSentences
from cmcgns.reporting.clusters.purity import Labels, LabelShare
from cmcgns.reporting.clusters.sentence_map import Plane, Polarity

_LISTED = 20  # wordings of a cluster in clusters.json; sentences.csv has all


def write_tables(
    out: Path,
    about: Mapping[str, Any],
    clusters: Sequence[Cluster],
    shares: Sequence[Sequence[LabelShare]],
    labels: Labels,
    history: History,
) -> None:
    """Write `clusters.json` and `clusters.csv`.

    Args:
        out: folder.
        about: what the page says of run and data.
        clusters: K of them.
        shares: labels of each.
        labels: of the images.
        history: shares over the epochs.
    """
    listed = [
        asdict(cluster)
        | {"wordings": [asdict(each) for each in cluster.wordings[:_LISTED]], "distinct": len(cluster.wordings)}
        for cluster in clusters
    ]
    content = dict(about) | {
        "base": labels.base,
        "clusters": [
            cluster | {"labels": [asdict(each) for each in own]} for cluster, own in zip(listed, shares, strict=True)
        ],
        "history": {"steps": history.steps.tolist(), "stages": history.stages, "shares": history.shares.tolist()},
    }
    write_json(out / "clusters.json", content)
    names = list(labels.base)
    header = ["cluster", "state", "share", "sentences", "distinct", "images", "cosine", "nearest"]
    header += [f"{name} {what}" for name in names for what in ("images", "prevalence", "lift")]
    rows = (_row(cluster, own, names) for cluster, own in zip(clusters, shares, strict=True))
    write_spreadsheet(out / "clusters.csv", header, rows)


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


def write_sentences(out: Path, sentences: DistinctSentences, plane: Plane, polarities: Sequence[Polarity]) -> None:
    """Write `sentences.csv`: every distinct sentence, the frequent ones first.

    Args:
        out: folder.
        sentences: S of them.
        plane: their places on the map.
        polarities: S; empty where not known.
    """
    header = ["sentence", "count", "cluster", "agreement", "cosine", "x", "y", "polarity"]
    order = sorted(range(len(sentences)), key=lambda i: -int(sentences.counts[i]))
    rows = (
        [
            sentences.texts[i], int(sentences.counts[i]), int(sentences.cluster[i]) + 1,
            float(sentences.agreement[i]), float(sentences.cosine[i]), *map(float, plane.points[i]),
            polarities[i] or None,
        ]
        for i in order
    )  # fmt: skip
    write_spreadsheet(out / "sentences.csv", header, rows)
