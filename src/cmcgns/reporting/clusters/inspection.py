"""Everything that is found out about the clusters of a run, before it is written down."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmcgns.common.errors import UserError
from cmcgns.objectives.cluster_bank import ClusterBank
from cmcgns.pretrained import Pretrained, load
from cmcgns.reporting.clusters.bank import History, Records, lacks_bank, read_history
from cmcgns.reporting.clusters.members import (
    Cluster,
    DistinctSentences,
    Plane,
    describe_clusters,
    distinct_sentences,
    principal_plane,
)
from cmcgns.reporting.clusters.purity import Labels, LabelShare, label_shares, read_labels
from cmcgns.reporting.clusters.quality import Polarity, measure_quality, polarity
from cmcgns.reporting.clusters.sentences import ClusteredSentences, SplitImages, cluster_sentences, read_split
from cmcgns.training.cluster_log import SentenceOracle
from cmcgns.training.journal import read_metrics
from cmcgns.training.run_folder import RunFolder


@dataclass(frozen=True)
class Inspection:
    """A run's clusters, and the sentences of a split in them.

    Attributes:
        model: the run.
        bank: its clusters.
        records: its log.
        history: sizes over the epochs.
        shown: the images whose sentences are shown.
        labels: of these images.
        found: all sentences with their clusters.
        clusters: K of them.
        shares: labels of each.
        distinct: every distinct sentence once.
        plane: their places on a map.
        polarities: whether they state or deny a finding, where that is known.
        quality: of the negatives, and by chance, where it is known what the sentences say.
    """

    model: Pretrained
    bank: ClusterBank
    records: Records
    history: History
    shown: SplitImages
    labels: Labels
    found: ClusteredSentences
    clusters: list[Cluster]
    shares: list[list[LabelShare]]
    distinct: DistinctSentences
    plane: Plane
    polarities: list[Polarity]
    quality: dict[str, tuple[float, float]]

    @property
    def about(self) -> dict[str, Any]:
        """What page and tables say of run and data."""
        settings, shown = self.model.recipe.objective, self.shown
        return {
            "run": self.model.recipe.name,
            "data": shown.source.name,
            "split": shown.split,
            "images": len(shown.frame),
            "images_of_split": shown.total,
            "trained_on": shown.trained,
            "sentences": len(self.found),
            "distinct": len(self.distinct),
            "local": settings.local,
            "source": settings.bank.source,
            "assigned_by": settings.bank.source if settings.local == "query_matched" else "text",
        }


def inspect_clusters(
    run: Path, manifest: Path, split: str | None, images: Path | None, oracle: SentenceOracle | None
) -> Inspection:
    """What there is to say of a run's clusters; arguments and errors as of `page.write_clusters`."""
    model, bank = open_bank(run)
    folder = RunFolder(run)
    records = read_metrics(folder.metrics) if folder.metrics.is_file() else []
    history = read_history(records, bank.clusters, folder)  # damage is said before minutes are spent
    shown = read_split(model, manifest, split, images)
    labels = read_labels(shown.frame, shown.source)
    found = cluster_sentences(model, shown)
    clusters, distinct = describe_clusters(bank, found), distinct_sentences(found)
    known = oracle if shown.is_synthetic else None
    return Inspection(
        model=model,
        bank=bank,
        records=records,
        history=history,
        shown=shown,
        labels=labels,
        found=found,
        clusters=clusters,
        shares=[label_shares(found, place, labels) for place in range(len(clusters))],
        distinct=distinct,
        plane=principal_plane(distinct.vectors),
        polarities=[polarity(text, known) for text in distinct.texts],
        quality=measure_quality(found, known),
    )


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


def open_bank(run: Path) -> tuple[Pretrained, ClusterBank]:
    """A finished run and its clusters.

    Raises:
        UserError: no run folder, not finished, or no clusters in it; says why.
    """
    check_run(run)
    model = load(run)
    reason = lacks_bank(model)
    if reason or model.method is None:
        raise UserError(f"{run} has no clusters to show. {reason}")
    return model, model.method.bank
