"""Clusters that sentences had when they were last seen.

Sentence dropout shows a report without some of its sentences. The image states them all the same, so whatever lies in
their clusters is no negative of it: neither other sentences nor the centroids.
"""

import torch
from torch import Tensor, nn

from cmcgns.objectives.report_overlap import cluster_membership

_PLACES = 2**16


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
