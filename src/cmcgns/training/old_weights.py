"""Weights and checkpoints of earlier versions, brought to the names and shapes of today."""

import torch
from torch import Tensor


def bring_up_to_date(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a run by name, as this version keeps a bank; those of version 0.1 had another queue and no queries.

    A bank that had not started begins to queue anew.
    """
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
