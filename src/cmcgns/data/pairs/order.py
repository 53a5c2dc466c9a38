"""Which studies form which batch: a pure function of seed, stage, epoch and step, so resuming needs no state."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmcgns.common.errors import UserError


@dataclass(frozen=True)
class BatchRequest:
    """Rows of one micro-step of one rank; `epoch_seed` is None for evaluation (nothing random)."""

    rows: NDArray[np.int64]
    epoch_seed: int | None = None


def mix(*numbers: int) -> int:
    """One well-mixed 63-bit number out of several, the same on every machine."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def steps_per_epoch(studies: int, batch_size: int, ranks: int = 1) -> int:
    """Whole global batches in an epoch; the remainder comes up in another epoch's shuffle.

    Raises:
        UserError: not even one batch.
    """
    steps = studies // (batch_size * ranks)
    if studies < ranks:
        raise UserError(f"{studies} training studies are fewer than {ranks} rank(s)")
    if steps == 0:
        raise UserError(
            f"{studies} training studies do not fill one batch of {batch_size} on {ranks} rank(s): "
            f"set training.batch_size to at most {studies // ranks}"
        )
    return steps


class TrainingOrder:
    """The batches of one epoch for one rank, from a given step on.

    Args:
        studies: number of training rows.
        batch_size: studies a rank.
        epoch_seed: mixed from seed, stage and epoch.
        start: first step.
        rank: of this process.
        ranks: of all.
    """

    def __init__(
        self, studies: int, batch_size: int, epoch_seed: int, start: int = 0, rank: int = 0, ranks: int = 1
    ) -> None:
        self.batch_size, self.epoch_seed, self.start = batch_size, epoch_seed, start
        self.rank, self.ranks = rank, ranks
        self.steps = steps_per_epoch(studies, batch_size, ranks)
        self.order = np.random.default_rng(epoch_seed).permutation(studies)

    def __iter__(self) -> Iterator[BatchRequest]:
        for step in range(self.start, self.steps):
            first = (step * self.ranks + self.rank) * self.batch_size
            yield BatchRequest(self.order[first : first + self.batch_size], self.epoch_seed)

    def __len__(self) -> int:
        return self.steps - self.start


def evaluation_order(studies: int, batch_size: int) -> list[BatchRequest]:
    """All rows in order; the last batch may be smaller."""
    rows = np.arange(studies)
    return [BatchRequest(rows[first : first + batch_size]) for first in range(0, studies, batch_size)]
