"""The cluster bank of a run in figures: whether there is one, when it started, how full it is."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cmcgns.objectives.cluster_bank import ClusterBank
from cmcgns.pretrained import Pretrained
from cmcgns.reporting.clusters.sentences import ClusteredSentences

Records = Sequence[dict[str, Any]]
"""Of `metrics.jsonl`."""


def bank_start(records: Records) -> int | None:
    """Step at which the cluster bank started."""
    steps = (record["step"] for record in records if record.get("message") == "the cluster bank started")
    return next(steps, None)


def lacks_bank(model: Pretrained) -> str | None:
    """Why a run has no clusters of sentences to show; None if it has."""
    method, settings = model.method, model.recipe.objective.bank
    if method is None or not method.uses_bank:
        return (
            "The run was made without the cluster bank (no local report loss, or in-batch negatives); "
            "objective.negatives=cluster has one."
        )
    if method.bank.is_started:
        return None
    conditions = f"mean cosine at most {settings.start_cosine:g}, or step {settings.start_by_step}"
    absent = f"its conditions ({conditions}) were not met, so the loss used in-batch negatives throughout."
    return f"The bank never started: {absent}"


def bank_facts(bank: ClusterBank, found: ClusteredSentences) -> dict[str, float]:
    """How many clusters there are, were seeded, are dead and hold a shown sentence; how even they are.

    `effective` is the exponential of the entropy of the shares: the number of equal clusters that would be as even.
    """
    usage = bank.shares.numpy()
    return {
        "clusters": bank.clusters,
        "seeded": int(bank.active.sum()),
        "dead": int(bank.dead.sum()),
        "held": len(np.unique(found.cluster)),
        "largest": float(usage.max()),
        "effective": float(np.exp(-(usage * np.log(np.maximum(usage, 1e-12))).sum())),
    }
