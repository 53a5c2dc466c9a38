"""The cluster bank of a run in figures: whether there is one, when it started, how full it is and has been."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmcgns.common.errors import UserError
from cmcgns.objectives.cluster_bank import ClusterBank
from cmcgns.pretrained import Pretrained
from cmcgns.reporting.clusters.sentences import ClusteredSentences
from cmcgns.training.run_folder import RunFolder

Records = Sequence[dict[str, Any]]
"""Of `metrics.jsonl`."""


def bank_start(records: Records) -> int | None:
    """Step at which the cluster bank started."""
    steps = (record["step"] for record in records if record.get("message") == "the cluster bank started")
    return next(steps, None)


def lacks_bank(model: Pretrained) -> str | None:
    """Why a run has no clusters of sentences to show; None if it has."""
    method, settings = model.method, model.recipe.objective.bank
    if method is None:
        return f"The run has objective.name {model.recipe.objective.name}, which has no cluster bank."
    if not method.uses_bank:
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


@dataclass(frozen=True)
class History:
    """Shares of the training sentences after each epoch since the bank has started.

    Attributes:
        steps: (E,) optimiser steps.
        stages: of the run, E names.
        shares: (E, K).
    """

    steps: NDArray[np.int64]
    stages: list[str]
    shares: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.steps)


def read_history(records: Sequence[Mapping[str, Any]], clusters: int, folder: RunFolder) -> History:
    """What a run has logged of its clusters; without any epoch where it is older than such records.

    Args:
        records: of metrics.jsonl.
        clusters: K of the bank.
        folder: of the run, for messages.

    Raises:
        UserError: a record that does not fit the bank.
    """
    logged = [record for record in records if record.get("kind") == "clusters"]
    for record in logged:
        shares, step = record.get("shares"), record.get("step")
        if not isinstance(shares, list) or len(shares) != clusters or not isinstance(step, int):
            raise UserError(
                f"{folder.metrics}: a record of the clusters (step {step}) does not fit the bank of {clusters} "
                "centroids: put the log of this run back from a copy; or take it away, and no sizes over time show"
            )
    return History(
        steps=np.array([record["step"] for record in logged], dtype=np.int64),
        stages=[str(record.get("stage", "")) for record in logged],
        shares=np.array([record["shares"] for record in logged], dtype=float).reshape(len(logged), clusters),
    )
