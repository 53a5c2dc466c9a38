"""Sizes of the clusters over the epochs of a run, from its log."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmcgns.common.errors import UserError
from cmcgns.training.run_folder import RunFolder


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
