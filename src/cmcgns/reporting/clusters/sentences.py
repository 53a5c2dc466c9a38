"""The sentences of a split, each with its cluster, as the run's loss assigns them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cmcgns.common.errors import UserError
from cmcgns.data.pairs.batch import evaluation_order
from cmcgns.data.pairs.dataset import PairDataset, pair_dataset
from cmcgns.data.pairs.rows import read_pairs
from cmcgns.data.reports.text import normalise_sentence
from cmcgns.data.shards.index import open_shards
from cmcgns.objectives.centroids import assign_two
from cmcgns.pretrained import BATCH, Pretrained
from cmcgns.reporting.run_page.studies import sentences_read, table_settings, trained_on
from cmcgns.training.run_folder import RunFolder
from cmcgns.training.seen import open_seen

MOST = 2000  # images; the vectors of all their sentences are kept in memory
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class SplitImages:
    """Images of a split with their reports.

    Attributes:
        split: its name.
        source: the table.
        frame: n rows of the table, numbered from 0.
        total: how many the split has; of more than `MOST` the first are taken.
        trained: how many of the n were trained on; None where the run has no list of its rows.
        dataset: the same as batches.
        sentences: those that the model reads of each report.
    """

    split: str
    source: Path
    frame: pd.DataFrame
    total: int
    trained: int | None
    dataset: PairDataset
    sentences: list[list[str]]


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
        images: folder where image paths start, as :func:`table_settings` says.

    Raises:
        UserError: shards, a table that cannot be read or has no reports, or no such split.
    """
    if open_shards(manifest) is not None:
        raise UserError(f"{manifest} holds shards, which the page cannot read: give the folder that they come from")
    data = table_settings(model, manifest, images)
    split = split or data.val_split or "val"
    pairs = read_pairs(manifest, data)
    chosen = pairs.frame[pairs.frame["split"] == split]
    if len(chosen) == 0:
        found = ", ".join(sorted(pairs.frame["split"].unique()))
        raise UserError(f"{pairs.source}: no row has split {split} (found: {found}): name one of them with --split")
    pairs.frame = chosen.head(MOST).reset_index(drop=True)
    dataset = pair_dataset(pairs, model.tokenizer, data)
    seen = open_seen(RunFolder(model.folder).seen) if model.folder is not None else None
    return SplitImages(
        split=split,
        source=pairs.source,
        frame=pairs.frame,
        total=len(chosen),
        trained=None if seen is None else int(trained_on(pairs, seen.frame).sum()),
        dataset=dataset,
        sentences=sentences_read(pairs.frame["text"], dataset),
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
    cosines, own, second = assign_two(vectors, centroids, active)
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
