"""How much two reports say alike, by the clusters that their sentences lie in: soft negatives of L_global."""

import torch
from torch import Tensor

from cmcgns.objectives.collective import gather, own_numbers, total

_LEAST_WEIGHT = 1e-3  # of a negative; log(0) would have no gradient anywhere


def cluster_membership(own: Tensor, study: Tensor, mask: Tensor, studies: int, clusters: int) -> Tensor:
    """(B, K) whether one of a study's sentences lies in a cluster.

    Args:
        own: (n,) nearest centroid of every sentence.
        study: (n,) row that it belongs to.
        mask: (n,) true for real sentences.
        studies: B.
        clusters: K.
    """
    holds = torch.zeros(studies, clusters + 1, dtype=torch.bool, device=own.device)
    places = study, own.masked_fill(~mask, clusters)  # padding goes to a column of its own
    holds.index_put_(places, holds.new_ones(()))  # a Python number would be copied from the host, which then waits
    return holds[:, :clusters]


def report_overlap(holds: Tensor, weights: Tensor) -> Tensor:
    """Weighted Jaccard index of the clusters of this rank's reports with those of the reports of all ranks.

    `o_ij = Σ_{k in both} v_k / Σ_{k in either} v_k`: 1 where both hold the same clusters, 0 where they share none, or
    one of them has no sentence.

    Args:
        holds: (B, K) which clusters a report's sentences lie in.
        weights: (K,) positive v_k.

    Returns:
        (B, ranks · B).
    """
    mine, everyone = holds.float() * weights, gather(holds.float())
    both = mine @ everyone.T
    either = mine.sum(1)[:, None] + everyone @ weights - both
    return both / torch.where(either > 0, either, 1)


def soft_negatives(own: Tensor, mask: Tensor, rarity: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Logarithms of the weights `1 - strength · o_ij`, at least 0.001, of other studies as negatives of L_global.

    Args:
        own: (B, M) nearest centroid of every sentence.
        mask: (B, M) true for real sentences.
        rarity: (K,) weights of clusters in the overlap o_ij of `report_overlap`.
        strength: 0 to 1.

    Returns:
        (B, ranks · B), 0 where there is no overlap and at the own study; and the mean o_ij of different studies.
    """
    studies = len(own)
    rows = torch.arange(studies, device=own.device).repeat_interleave(own.shape[1])
    holds = cluster_membership(own.flatten(), rows, mask.flatten(), studies, len(rarity))
    overlap = report_overlap(holds, rarity)
    overlap = overlap.scatter(1, own_numbers(studies, own.device)[:, None], 0.0)
    pairs = overlap.shape[1] * (overlap.shape[1] - 1)
    return (1 - strength * overlap).clamp(min=_LEAST_WEIGHT).log(), total(overlap.sum()) / max(pairs, 1)
