"""Weights and checkpoints of earlier versions, brought to the names and shapes of today."""

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

logger = logging.getLogger(__name__)


def bring_up_to_date(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a run by name, with the names and shapes of this version.

    Args:
        tensors: as an earlier version wrote them.
        wanted: of the module that is to be filled.
    """
    return _with_sentence_clusters(_with_bank_of_today(tensors), wanted)


def _with_sentence_clusters(tensors: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The clusters of sentences that dropout hides were not kept once; the table fills in an epoch."""
    lacking = [name for name in wanted if name.endswith("known.rows") and name not in tensors]
    if lacking:
        logger.warning(
            "this run was begun when clusters of sentences that sentence dropout hides were forgotten. It goes on "
            "with a table of them (docs/method.md, L_report), which is empty until its sentences have been seen"
        )
    return tensors | {name: torch.zeros_like(wanted[name]) for name in lacking}


def _with_bank_of_today(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of version 0.1 had another queue and no queries; a bank that had not started begins to queue anew."""
    result = dict(tensors)
    for name in tensors:
        if not name.endswith("bank.queue_text"):
            continue
        bank = name.removesuffix("queue_text")
        del result[name], result[f"{bank}queued"]
        old, centroids = result[f"{bank}queue"], result[f"{bank}centroids"]
        rows = 1 + max(1024, 2 * (len(old) - 1))  # the old queue held four rows a cluster, this one eight
        result[f"{bank}queue"] = old.new_zeros(rows, 2, old.shape[1])
        result[f"{bank}queue_step"] = torch.zeros(rows, dtype=torch.long)
        result[f"{bank}queries"] = centroids.clone()
        result[f"{bank}means"] = centroids.new_zeros(2, centroids.shape[1])
    return result
