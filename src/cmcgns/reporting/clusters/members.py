"""What each cluster holds, how many sentences and images, and which are nearest; the distinct ones on a map."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cmcgns.objectives.cluster_bank import ClusterBank
from cmcgns.reporting.clusters.sentences import ClusteredSentences

State = Literal["alive", "dead", "not seeded"]


@dataclass(frozen=True)
class Wording:
    """A distinct sentence in a cluster.

    Attributes:
        text: as it stands where it occurs first.
        count: how often it lies in this cluster; with what a sentence sees it may lie in several.
        cosine: to the centroid, mean over these.
    """

    text: str
    count: int
    cosine: float


@dataclass(frozen=True)
class Cluster:
    """A cluster of the bank.

    Attributes:
        number: counted from 1, as on the page of the run.
        state: dead: less than a twentieth of an equal share of the training sentences.
        share: of the training sentences of about the last hundred steps.
        sentences, images: how many of the shown ones it holds, and on how many images they are.
        cosine: of its sentences to the centroid, mean; None without any.
        wordings: distinct sentences, the nearest first.
    """

    number: int
    state: State
    share: float
    sentences: int
    images: int
    cosine: float | None
    wordings: tuple[Wording, ...]


def describe_clusters(bank: ClusterBank, found: ClusteredSentences) -> list[Cluster]:
    """All K clusters of the bank, in its order.

    Args:
        bank: that has started.
        found: the sentences that are shown.
    """
    shares, dead, active = bank.shares.tolist(), bank.dead.tolist(), bank.active.tolist()
    clusters = []
    for k in range(bank.clusters):
        members = np.flatnonzero(found.cluster == k)
        clusters.append(
            Cluster(
                number=k + 1,
                state="not seeded" if not active[k] else "dead" if dead[k] else "alive",
                share=shares[k],
                sentences=len(members),
                images=len(np.unique(found.image[members])),
                cosine=float(found.cosine[members].mean()) if len(members) else None,
                wordings=nearest_wordings(found, members),
            )
        )
    return clusters


def fullest(clusters: Iterable[Cluster]) -> list[Cluster]:
    """Those that hold a shown sentence, the largest in training first."""
    return by_share(each for each in clusters if each.sentences)


def by_share(clusters: Iterable[Cluster]) -> list[Cluster]:
    """The largest in training first."""
    return sorted(clusters, key=lambda each: (-each.share, each.number))


def nearest_wordings(found: ClusteredSentences, members: NDArray[np.int64]) -> tuple[Wording, ...]:
    """Distinct sentences among some, the nearest to their centroid first; of equally near ones the more frequent."""
    numbers, place = np.unique(found.text[members], return_inverse=True)
    counts = np.bincount(place, minlength=len(numbers))
    means = np.bincount(place, weights=found.cosine[members], minlength=len(numbers)) / counts.clip(1)
    order = np.lexsort((numbers, -counts, -means.round(6)))
    return tuple(Wording(found.texts[numbers[i]], int(counts[i]), float(means[i])) for i in order)


@dataclass(frozen=True)
class DistinctSentences:
    """The S distinct sentences, each once.

    Attributes:
        texts: S wordings.
        counts: (S,) how often each occurs.
        cluster: (S,) the one that holds most of these, from 0; of equal ones the first.
        agreement: (S,) share of the occurrences that it holds.
        cosine: (S,) of these to its centroid, mean.
        vectors: (S, D) unit, mean direction of all occurrences.
    """

    texts: list[str]
    counts: NDArray[np.int64]
    cluster: NDArray[np.int64]
    agreement: NDArray[np.float64]
    cosine: NDArray[np.float64]
    vectors: Tensor

    def __len__(self) -> int:
        return len(self.texts)


def distinct_sentences(found: ClusteredSentences) -> DistinctSentences:
    """The distinct ones among all sentences."""
    size, width = len(found.texts), int(found.cluster.max()) + 1
    # Only pairs that occur are kept: sentences × clusters would be the largest array of the page.
    pairs, place = np.unique(found.text * width + found.cluster, return_inverse=True)
    occurs = np.bincount(place)
    order = np.lexsort((pairs % width, -occurs, pairs // width))
    first = order[np.unique(pairs[order] // width, return_index=True)[1]]
    counts = np.bincount(found.text, minlength=size)
    cosine = np.bincount(place, weights=found.cosine)[first] / occurs[first]
    sums = torch.zeros(size, found.vectors.shape[1]).index_add_(0, torch.from_numpy(found.text), found.vectors)
    vectors = F.normalize(sums, dim=-1)
    return DistinctSentences(found.texts, counts, pairs[first] % width, occurs[first] / counts, cosine, vectors)


@dataclass(frozen=True)
class Plane:
    """S points in the plane.

    Attributes:
        points: (S, 2).
        explained: share of the variance along each of the two directions.
    """

    points: NDArray[np.float64]
    explained: tuple[float, float]


def principal_plane(vectors: Tensor) -> Plane:
    """The first two principal components of (S, D) vectors.

    A component has no sign of its own: the point that lies farthest out is on the positive side, so that equal
    vectors give equal maps.
    """
    centred = vectors.double() - vectors.double().mean(0)
    left, strength, _ = torch.linalg.svd(centred, full_matrices=False)
    points = np.zeros((len(vectors), 2))
    count = min(2, len(strength))
    found = (left * strength)[:, :count].numpy()
    farthest = found[np.abs(found).round(9).argmax(0), np.arange(count)]
    points[:, :count] = found * np.where(farthest < 0, -1, 1)
    variance = strength.square().numpy()
    total = variance.sum()
    shares = [float(part / total) if total > 0 else 0.0 for part in variance[:2]]
    return Plane(points, (shares[0], shares[1] if count > 1 else 0.0))
