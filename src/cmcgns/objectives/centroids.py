"""Centroids of unit vectors: how the first are chosen, who belongs to which, how they move."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cmcgns.objectives.collective import gather

Seeding = Literal["farthest_point", "kmeans++", "chain"]
Update = Literal["mean", "sum"]


def seed_centroids(vectors: Tensor, count: int, kind: Seeding, generator: torch.Generator) -> Tensor:
    """Choose centroids among unit vectors, starting from a random one.

    Args:
        vectors: (n, D) unit vectors with n >= count.
        count: number of centroids K.
        kind: see the functions below.
        generator: CPU generator of the random choices.

    Returns:
        (K,) indices of the chosen rows, none twice.
    """
    first = int(torch.randint(len(vectors), (), generator=generator))
    if kind == "farthest_point":
        return farthest_point(vectors, count, first)
    if kind == "chain":
        return least_similar_chain(vectors, count, first)
    return kmeans_plus_plus(vectors, count, first, generator)


def farthest_point(vectors: Tensor, count: int, first: int) -> Tensor:
    """Always the vector whose largest cosine to the chosen ones is smallest."""
    chosen = [first]
    nearest = vectors @ vectors[first]
    for _ in range(count - 1):
        nearest[chosen[-1]] = torch.inf
        chosen.append(int(nearest.argmin()))
        nearest = torch.maximum(nearest, vectors @ vectors[chosen[-1]])
    return torch.tensor(chosen, device=vectors.device)


def kmeans_plus_plus(vectors: Tensor, count: int, first: int, generator: torch.Generator) -> Tensor:
    """Draw with probability proportional to the squared distance from the chosen ones (2 - 2·cosine)."""
    chosen = [first]
    distance = (2 - 2 * (vectors @ vectors[first])).clamp(min=0)
    for _ in range(count - 1):
        distance[chosen[-1]] = 0
        # All remaining vectors may equal a chosen one; any that was not taken yet will do then.
        weights = distance
        if not bool(distance.sum() > 0):
            weights = torch.ones(len(vectors)).index_fill(0, torch.tensor(chosen), 0)
        chosen.append(int(torch.multinomial(weights.cpu().double(), 1, generator=generator)))
        distance = torch.minimum(distance, (2 - 2 * (vectors @ vectors[chosen[-1]])).clamp(min=0))
    return torch.tensor(chosen, device=vectors.device)


def least_similar_chain(vectors: Tensor, count: int, first: int) -> Tensor:
    """`released`: always the vector least similar to the *last* one chosen, none twice.

    Kept to reproduce the released program; it finds about half of the true groups.
    """
    chosen = [first]
    taken = torch.zeros(len(vectors), dtype=torch.bool, device=vectors.device)
    for _ in range(count - 1):
        taken[chosen[-1]] = True
        chosen.append(int((vectors @ vectors[chosen[-1]]).masked_fill(taken, torch.inf).argmin()))
    return torch.tensor(chosen, device=vectors.device)


@dataclass(frozen=True)
class Clusters:
    """Where n vectors stand among the centroids.

    Attributes:
        cosines: (n, K) to all centroids.
        own: (n,) nearest.
        hard: (n,) second nearest: the hard negative.
    """

    cosines: Tensor
    own: Tensor
    hard: Tensor


def assign_two(vectors: Tensor, centroids: Tensor, active: Tensor) -> Clusters:
    """Find the nearest and second nearest centroids; gradients reach the vectors but never the centroids.

    Args:
        vectors: (n, D) unit vectors.
        centroids: (K, D) centroids.
        active: (K,) true for centroids in use: no other is ever among the two.
    """
    # Centroids are unit vectors already, except under the released update, which lets their length drift.
    cosines = vectors @ F.normalize(centroids.detach(), dim=-1).T
    nearest = cosines.detach().masked_fill(~active, -torch.inf).topk(2, dim=-1).indices
    return Clusters(cosines, nearest[:, 0], nearest[:, 1])


def worst_fit(fit: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """The vector of all ranks that fits its own centroid least.

    Args:
        fit: (n,) cosine of every vector to its own centroid; infinite for padding.
        vectors: (n, …).

    Returns:
        Its cosine, infinite where no rank has a vector, and itself (…).
    """
    worst = fit.argmin()[None]  # an index of one row: a plain one would be read back to the host
    fits, candidates = gather(fit.index_select(0, worst)), gather(vectors.index_select(0, worst))
    return fits.min(), candidates.index_select(0, fits.argmin()[None])[0]


def move_centroids(centroids: Tensor, sums: Tensor, counts: Tensor, momentum_rate: float, kind: Update) -> Tensor:
    """One k-means step with momentum.

    Args:
        centroids: (K, D).
        sums: (K, D) sum of the members of each cluster.
        counts: (K,) number of members.
        momentum_rate: r.
        kind: `mean`: c <- normalise((1-r)·c + r·mean), the method; `sum`: c <- (1-r)·c + r·SUM, not
            normalised, as released. Empty clusters stay where they are in both.
    """
    target = sums / counts.clamp(min=1)[:, None] if kind == "mean" else sums
    moved = (1 - momentum_rate) * centroids + momentum_rate * target
    moved = F.normalize(moved, dim=-1) if kind == "mean" else moved
    return torch.where(counts[:, None] > 0, moved, centroids)
