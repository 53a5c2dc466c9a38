"""The sentences of a split, each with its cluster, as the run's loss assigns them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cmcgns.data.pairs.batch import evaluation_order
from cmcgns.data.pairs.rows import rows_of_split
from cmcgns.data.reports.text import normalise_sentence
from cmcgns.evaluation.study_set import StudySet, as_studies, read_table, trained_on
from cmcgns.objectives.centroids import assign_two
from cmcgns.pretrained import BATCH, Pretrained
from cmcgns.training.run_folder import RunFolder
from cmcgns.training.seen import open_seen

MOST = 2000  # images; the vectors of all their sentences are kept in memory
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class SplitImages(StudySet):
    """Images of a split with their reports.

    Attributes:
        split: its name.
        total: how many the split has; of more than `MOST` the first are taken.
        trained: how many of the n were trained on; None where the run has no list of its rows.
    """

    split: str
    total: int
    trained: int | None


@dataclass(frozen=True)
class ClusteredSentences:
    """All N sentences of some images, S of them distinct.

    Attributes:
        texts: S wordings, each as it stands where it occurs first.
        text: (N,) which of them a sentence is.
        image: (N,) row of its image.
        vectors: (N, D) unit vectors that were compared with the centroids.
        cluster: (N,) nearest centroid.
        second: (N,) second nearest: its hard negatives.
        cosine: (N,) cosine to it.
    """

    texts: list[str]
    text: Numbers
    image: Numbers
    vectors: Tensor
    cluster: Numbers
    second: Numbers
    cosine: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.text)


def read_split(
    model: Pretrained, manifest: Path, split: str | None = None, images: Path | None = None
) -> SplitImages:
    """The images of a split, of which at most `MOST` are taken.

    Args:
        model: the run.
        manifest: table or folder of pairs.
        split: its name; by default that of the run's validation.
        images: folder where image paths start, as for :func:`read_table`.

    Raises:
        UserError: shards, a table that cannot be read or has no reports, or no such split.
    """
    pairs, data = read_table(model, manifest, images)
    split = split or data.val_split or "val"
    chosen = rows_of_split(pairs, split, ": name one of them with --split")
    pairs.frame = chosen.head(MOST)
    studies = as_studies(model, pairs, data, rebuilds=False)
    seen = open_seen(RunFolder(model.folder).seen) if model.folder is not None else None
    return SplitImages(
        source=studies.source,
        frame=studies.frame,
        dataset=studies.dataset,
        split=split,
        total=len(chosen),
        trained=None if seen is None else int(trained_on(studies, seen.frame).sum()),
    )


@torch.no_grad()
def cluster_sentences(model: Pretrained, images: SplitImages) -> ClusteredSentences:
    """Every sentence with the cluster that L_report finds for it, looking at its own image.

    Args:
        model: a run whose bank has started.
        images: whose reports are read.
    """
    method = model.method
    assert method is not None  # who has a bank has this method
    vectors = []
    for request in evaluation_order(len(images.dataset), BATCH):
        batch = images.dataset[request].to(model.device)
        features = model.task.model(batch)
        rows = method.sentences(features, features.patches, batch)
        vectors.append(method.assigned_by(rows.z1, rows.z2)[rows.mask].float().cpu())
    return assign_sentences(
        images.sentences, torch.cat(vectors), method.bank.centroids.cpu(), method.bank.active.cpu()
    )


def assign_sentences(
    reports: Sequence[Sequence[str]], vectors: Tensor, centroids: Tensor, active: Tensor
) -> ClusteredSentences:
    """Every sentence with its nearest centroid.

    Args:
        reports: the sentences of each image.
        vectors: (N, D) unit vectors of all of them, report by report.
        centroids: (K, D).
        active: (K,) true for centroids in use.
    """
    found = assign_two(vectors, centroids, active)
    numbers: dict[str, int] = {}
    texts, text = list[str](), list[int]()
    for sentence in (sentence for report in reports for sentence in report):
        key = normalise_sentence(sentence)
        if key not in numbers:
            numbers[key] = len(texts)
            texts.append(sentence)
        text.append(numbers[key])
    counts = [len(report) for report in reports]
    return ClusteredSentences(
        texts=texts,
        text=np.array(text),
        image=np.repeat(np.arange(len(counts)), counts),
        vectors=F.normalize(vectors, dim=-1),
        cluster=found.own.numpy(),
        second=found.hard.numpy(),
        cosine=found.cosines.gather(1, found.own[:, None])[:, 0].numpy(),
    )
