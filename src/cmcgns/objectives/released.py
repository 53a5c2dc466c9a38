"""The local report loss as the authors' released program computes it.

A named alternative to `local_report.py`, kept to compare with. It differs from the description in three ways: a
hard negative's cosine is *multiplied* by its weight, which leaves N-1 zeros in every denominator; the margin
loss averages over all N×N entries, of which those that are no false negative count as d = 0; τ is 1.
(The bank's part of it is `update="sum"` and `seeding="chain"`.)
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from cmcgns.objectives.centroids import Clusters
from cmcgns.objectives.collective import sum_over_ranks, total
from cmcgns.objectives.local_report import SentencePairs, Sentences


def released_contrast(rows: Sentences, pairs: SentencePairs, clusters: Clusters | None, weight: float) -> Tensor:
    """Cross-entropy over in-batch cosines, `weight`·cos(z1_i, c(i)) and N-1 zeros.

    Args:
        rows: this rank's sentences.
        pairs: their comparison with all columns.
        clusters: None before the bank has started: plain in-batch cross-entropy.
        weight: multiplier of the hard negative (3 in the released program).

    Returns:
        Mean over the N sentences.
    """
    count = total(rows.mask.sum()).clamp(min=1)
    logits = pairs.cosines.masked_fill(~pairs.column_mask & ~pairs.positive, -torch.inf)
    if clusters is not None:
        hard = clusters.cosines.gather(1, clusters.hard[:, None])
        zeros = (count - 1).to(hard.dtype).log().expand_as(hard)
        logits = torch.cat([logits, weight * hard, zeros], dim=1)
    target = pairs.own_column.masked_fill(~rows.mask, -100)
    return sum_over_ranks(F.cross_entropy(logits, target, ignore_index=-100, reduction="sum") / count)


def released_margin(pairs: SentencePairs, mask: Tensor, alpha: float, beta: float) -> Tensor:
    """Margin loss over all N×N entries; d is 0 where an entry is no false negative, which costs α each.

    Raises:
        ValueError: before the bank has started there are no false negatives.
    """
    if pairs.same_cluster is None:
        raise ValueError("released_margin needs clusters")
    difference = pairs.cosines - pairs.cosines.gather(1, pairs.own_column[:, None])
    difference = difference * (pairs.same_cluster & mask[:, None])
    loss = torch.relu(difference + alpha) + torch.relu(-difference - beta)
    real = mask[:, None] & pairs.column_mask
    return sum_over_ranks((loss * real).sum() / total(real.sum()).clamp(min=1))
