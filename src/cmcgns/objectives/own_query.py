"""L_report as published: a sentence is compared with what every sentence sees, with its own query, in its own image.

`query_matched.py` is the form that asks every image with the same query. Beside the description stands the arithmetic
of the authors' released program (`arithmetic=released`), kept to compare with. It differs in three ways: a hard
negative's cosine is *multiplied* by its weight, which leaves N-1 zeros in every denominator; the margin loss averages
over all N×N entries, of which those that are no false negative count as d = 0; τ is 1. (The bank's part of it is
`update="sum"` and `seeding="chain"`.)
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cmcgns.objectives.centroids import Clusters
from cmcgns.objectives.collective import gather, mean_where, own_numbers, sum_over_ranks, total
from cmcgns.objectives.report_clusters import LEAST_WEIGHT
from cmcgns.settings.config import ObjectiveSettings


@dataclass(frozen=True)
class Sentences:
    """The N sentences of a batch, flattened and padded to n = B·M rows.

    Attributes:
        z1: (n, D) unit sentence vectors.
        z2: (n, D) unit cross-modal vectors; row i belongs to row i of z1.
        mask: (n,) true for real sentences.
        text: (n,) equal numbers mean equal normalised text.
    """

    z1: Tensor
    z2: Tensor
    mask: Tensor
    text: Tensor

    @classmethod
    def of(cls, sentences: Tensor, attended: Tensor, mask: Tensor, text: Tensor) -> "Sentences":
        """Flatten (B, M, D) embeddings and their f_I2R; mask and text are (B, M)."""
        z1 = F.normalize(sentences.flatten(0, 1).float(), dim=-1)
        z2 = F.normalize(attended.flatten(0, 1).float(), dim=-1)
        return cls(z1, z2, mask.flatten(), text.flatten())


@dataclass(frozen=True)
class SentencePairs:
    """What every row of the (n, columns) cosine matrix needs to know about its columns."""

    cosines: Tensor  # (n, columns) cos(z1_i, z2_j)
    positive: Tensor  # (n, columns) true at each row's own column
    column_mask: Tensor  # (columns,) real sentences
    equal_text: Tensor  # (n, columns)
    same_cluster: Tensor | None  # (n, columns), own column excluded; None without a bank
    own_column: Tensor  # (n,)

    @classmethod
    def of(cls, rows: Sentences, clusters: Clusters | None) -> "SentencePairs":
        """Compare this rank's rows with the columns of all ranks."""
        own_column = own_numbers(len(rows.z1), rows.z1.device)
        cosines = rows.z1 @ gather(rows.z2).T
        positive = own_column[:, None] == torch.arange(cosines.shape[1], device=cosines.device)
        column_mask = gather(rows.mask)
        equal_text = (rows.text[:, None] == gather(rows.text)) & column_mask & ~positive
        same = None
        if clusters is not None:
            same = (clusters.own[:, None] == gather(clusters.own)) & column_mask & ~positive
        return cls(cosines, positive, column_mask, equal_text, same, own_column)


def contrast(
    rows: Sentences,
    pairs: SentencePairs,
    clusters: Clusters | None,
    *,
    logit_scale: Tensor | float,
    mu: float = 1.0,
    left_out: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of `[cos(z1_i,z2_j)/τ, cos(z1_i,c(j))/τ + log(μ)·[i=j]]` against column i.

    The N hard-negative columns are at most K different centroids, so they are not written out: centroid k
    stands once, with the logarithm of the number of sentences whose hard negative it is (plus μ - 1 for the row's
    own) added to its logit. A row's own cluster is no negative of it and is left out.

    Args:
        rows: this rank's sentences.
        pairs: their comparison with all columns.
        clusters: None for in-batch negatives only.
        logit_scale: 1/τ.
        mu: weight of a sentence's own hard negative, >= 1.
        left_out: (n, columns) true for columns that are no negatives of the row.
        weights: (n, columns) factors in (0, 1] of columns in the denominator.

    Returns:
        Mean over the N real sentences of all ranks.
    """
    logits = pairs.cosines * logit_scale
    if weights is not None:
        logits = logits + weights.log()
    dropped = ~pairs.column_mask if left_out is None else ~pairs.column_mask | left_out
    # A row always keeps its own column: rows of padding stay finite and are ignored below.
    logits = logits.masked_fill(dropped & ~pairs.positive, -torch.inf)
    if clusters is not None:
        hard_logits = clusters.cosines * logit_scale + _hard_multiplicity(rows, clusters, mu).log()
        logits = torch.cat([logits, hard_logits], dim=1)
    target = pairs.own_column.masked_fill(~rows.mask, -100)
    loss = F.cross_entropy(logits, target, ignore_index=-100, reduction="sum")
    return sum_over_ranks(loss / total(rows.mask.sum()).clamp(min=1))


def _hard_multiplicity(rows: Sentences, clusters: Clusters, mu: float) -> Tensor:
    """(n, K): how often centroid k stands among the hard columns of row i, its own hard negative μ times."""
    count, dtype = clusters.cosines.shape[1], clusters.cosines.dtype
    members = torch.zeros(count, dtype=dtype, device=rows.mask.device)
    members = total(members.index_add_(0, clusters.hard, rows.mask.to(dtype)))
    own_hard = F.one_hot(clusters.hard, count).to(dtype) * (mu - 1)
    return (members + own_hard).masked_fill(F.one_hot(clusters.own, count).bool(), 0)


def margin_loss(pairs: SentencePairs, false_negatives: Tensor, mask: Tensor, alpha: float, beta: float) -> Tensor:
    """Bidirectional margin: a false negative may be a little less similar than the positive, not more.

    `relu(d + α) + relu(-d - β)` with d = cos(z1_i,z2_j) - cos(z1_i,z2_i), averaged over the false negatives only.

    Args:
        pairs: cosines (n, columns).
        false_negatives: (n, columns).
        mask: (n,) real rows.
        alpha: lower margin.
        beta: upper margin.

    Returns:
        The mean over all ranks' false negatives; 0 when there are none.
    """
    chosen = false_negatives & mask[:, None]
    difference = pairs.cosines - pairs.cosines.gather(1, pairs.own_column[:, None])
    loss = torch.relu(difference + alpha) + torch.relu(-difference - beta)
    return mean_where(loss, chosen)


def soft_weights(z1: Tensor, false_negatives: Tensor) -> Tensor:
    """(n, columns) factors 1 - cos(z1_i, z1_j), clamped to [1e-3, 1], for false negatives; 1 elsewhere."""
    similarity = z1.detach() @ gather(z1.detach()).T
    return torch.where(false_negatives, (1 - similarity).clamp(LEAST_WEIGHT, 1), 1.0)


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
    return mean_where(loss, mask[:, None] & pairs.column_mask)


def own_query_report(
    settings: ObjectiveSettings, rows: Sentences, clusters: Clusters | None, logit_scale: Tensor
) -> tuple[Tensor, Tensor]:
    """L_report as the settings say, and its margin part (0 where there is none).

    Args:
        settings: which arithmetic, and what becomes of sentences that may say the same.
        rows: the sentences of this rank.
        clusters: where they stand; None for in-batch negatives only, as before the bank has started.
        logit_scale: 1/τ.
    """
    pairs, margin = SentencePairs.of(rows, clusters), rows.z1.new_zeros(())
    if settings.arithmetic == "released":
        loss = released_contrast(rows, pairs, clusters, settings.mu)
        if clusters is not None:
            margin = released_margin(pairs, rows.mask, settings.alpha, settings.beta)
        return loss + settings.margin_weight * margin, margin
    left_out, weights = pairs.equal_text & settings.duplicates, None
    if pairs.same_cluster is not None and settings.negatives == "cluster":
        false = pairs.same_cluster & ~left_out
        if settings.false_negatives == "mask":
            left_out = left_out | false
        elif settings.false_negatives == "soft":
            weights = soft_weights(rows.z1, false)
        elif settings.false_negatives == "margin":
            margin = margin_loss(pairs, false, rows.mask, settings.alpha, settings.beta)
    loss = contrast(
        rows, pairs, clusters, logit_scale=logit_scale, mu=settings.mu, left_out=left_out, weights=weights
    )  # fmt: skip
    return loss + settings.margin_weight * margin, margin
