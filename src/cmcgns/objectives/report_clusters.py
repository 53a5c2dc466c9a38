"""In which clusters the sentences of a report lie: overlap of two reports, and sentences that are not shown.

Reports that share clusters are soft negatives of each other in L_global. Sentence dropout shows a report without some
of its sentences. The image states them all the same, so whatever lies in their clusters is no negative of it: neither
other sentences nor the centroids.
"""

import torch
from torch import Tensor, nn

from cmcgns.objectives.collective import gather, own_numbers, total

LEAST_WEIGHT = 1e-3
"""Of a negative; log(0) would have no gradient anywhere."""
_PLACES = 2**16


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
    return (1 - strength * overlap).clamp(min=LEAST_WEIGHT).log(), total(overlap.sum()) / max(pairs, 1)


class SentenceClusters(nn.Module):
    """The last cluster of every text; of two texts with one place in the table the older one is forgotten.

    Args:
        places: of the table.
    """

    rows: Tensor

    def __init__(self, places: int = _PLACES) -> None:
        super().__init__()
        # One more than there are places: where padding is written to. (text, cluster); text 0 is padding.
        self.register_buffer("rows", torch.zeros(places + 1, 2, dtype=torch.long))

    @torch.no_grad()
    def keep(self, text: Tensor, cluster: Tensor, mask: Tensor) -> None:
        """Remember the (n,) clusters of (n,) texts, the same on all ranks; `mask` is true for real sentences."""
        self.rows[newest_places(text, mask, len(self.rows) - 1)] = torch.stack([text, cluster], dim=1)
        self.rows[-1] = 0

    @torch.no_grad()
    def of_left_out(self, reports: Tensor, shown: Tensor, clusters: int) -> Tensor:
        """(B, K) clusters of sentences that a report has and does not show; nothing of those never seen.

        Args:
            reports: (B, R) texts of whole reports; 0 for padding.
            shown: (B, M) texts that are shown.
            clusters: K.
        """
        text, cluster = self.rows[reports % (len(self.rows) - 1)].unbind(-1)
        left_out = (reports[:, :, None] != shown[:, None]).all(-1) & (reports != 0) & (text == reports)
        studies = torch.arange(len(reports), device=reports.device).repeat_interleave(reports.shape[1])
        return cluster_membership(cluster.flatten(), studies, left_out.flatten(), len(reports), clusters)


def newest_places(text: Tensor, mask: Tensor, size: int) -> Tensor:
    """(n,) places in a table where every text has one of its own; the newest row of a place gets it.

    Args:
        text: (n,) equal numbers mean equal text.
        mask: (n,) true for real rows.
        size: of the table; rows that get no place get this number.
    """
    places = torch.where(mask, text % size, size)
    order = torch.arange(len(places), device=places.device)
    newest = torch.full((size + 1,), -1, device=places.device).scatter_reduce_(0, places, order, "amax")
    return torch.where(newest[places] == order, places, size)
