"""The sentences of a split, each with its cluster, as the run's loss assigns them."""

from collections.abc import Iterable, Iterator, Sequence
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
from cmcgns.objectives.centroids import Clusters
from cmcgns.pretrained import BATCH, Pretrained

MOST = 2000  # images; the vectors of all their sentences are kept in memory
Numbers = NDArray[np.int64]
Assigned = tuple[Tensor, Clusters, Tensor]
"""What `CMCGNS.assign` gives of B reports of M padded sentences, and (B, M) which are real."""


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
    trained = trained_on(model, studies)
    return SplitImages(
        source=studies.source,
        frame=studies.frame,
        dataset=studies.dataset,
        split=split,
        total=len(chosen),
        trained=None if trained is None else int(trained.sum()),
    )


@torch.no_grad()
def cluster_sentences(model: Pretrained, studies: StudySet) -> ClusteredSentences:
    """Every sentence with the cluster that L_report finds for it, looking at its own image.

    Args:
        model: a run whose bank has started.
        studies: whose reports are read.
    """
    method = model.method
    assert method is not None  # who has a bank has this method

    def parts() -> Iterator[Assigned]:
        for request in evaluation_order(len(studies), BATCH):
            batch = studies.dataset[request].to(model.device)
            yield *method.assign(model.task.model(batch), batch), batch.sentence_mask

    return clustered(studies.sentences, parts())


def clustered(reports: Sequence[Sequence[str]], parts: Iterable[Assigned]) -> ClusteredSentences:
    """Sentences that were assigned, batch by batch.

    Args:
        reports: the sentences of each image.
        parts: of all of them, in order.
    """
    kept = []
    for vectors, found, mask in parts:
        real = mask.flatten()
        kept.append([each[real].cpu() for each in (vectors, found.cosines, found.own, found.hard)])
    vectors, cosines, own, second = (torch.cat(each) for each in zip(*kept, strict=True))
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
        cluster=own.numpy(),
        second=second.numpy(),
        cosine=cosines.gather(1, own[:, None])[:, 0].numpy(),
    )
