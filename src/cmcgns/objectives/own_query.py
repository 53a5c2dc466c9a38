"""L_report as published: a sentence is compared with what every sentence sees, with its own query, in its own image.

`query_matched.py` is the form that asks every image with the same query.
"""

from torch import Tensor

from cmcgns.objectives.centroids import Clusters
from cmcgns.objectives.local_report import (
    SentencePairs,
    Sentences,
    contrast,
    margin_loss,
    soft_weights,
)
from cmcgns.objectives.released import released_contrast, released_margin
from cmcgns.settings.config import ObjectiveSettings


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
