"""What one training step consumes, and which studies form which batch.

The order is a pure function of seed, stage, epoch and step, so resuming needs no state.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmcgns.common.errors import UserError
from cmcgns.data.pairs.near import order_of_near_pairs


@dataclass
class Batch:
    """B studies: B radiographs and the B reports that belong to them.

    L and M are padded bounds: no other shape of a step depends on the data.

    Attributes:
        images: (B, 1, H, W) float, normalised (0.5 mean, 0.5 standard deviation: -1 is black, 1 is white).
        token_ids: (B, L) word pieces of the report, [CLS] first, [SEP] last, then padding.
        token_mask: (B, L) true for every word piece that is not padding.
        token_sentence: (B, L) index of the sentence a word piece belongs to; -1 for [CLS], [SEP], padding.
        sentence_mask: (B, M) true for real sentences, which come first.
        sentence_text: (B, M) equal numbers mean equal normalised text; 0 for padding.
        report_text: (B,) the same for whole reports.
        report_sentences: (B, R) numbers of the report's sentences before any was left out; 0 for padding.
        study_ids: B names for messages.
        token_order: (B,) the studies from the shortest report to the longest; None to encode them all together.
        token_lengths: word pieces of the longest report in each of as many equal parts of that order.
        sentence_places: (R,) places of the flattened (B, M) sentences, those of all real ones first; None for all.
        fine_images: (B, 1, 2H, 2W) the same views of pictures of twice the side; None where nobody asked for them.
    """

    images: Tensor
    token_ids: Tensor
    token_mask: Tensor
    token_sentence: Tensor
    sentence_mask: Tensor
    sentence_text: Tensor
    report_text: Tensor
    report_sentences: Tensor
    study_ids: tuple[str, ...] = ()
    token_order: Tensor | None = None
    token_lengths: tuple[int, ...] = ()
    sentence_places: Tensor | None = None
    fine_images: Tensor | None = None

    def to(self, device: torch.device | str) -> "Batch":
        """Copy every tensor to a device; to a CUDA device without waiting where host memory is pinned."""
        # Other devices may read host memory after it was freed (https://github.com/pytorch/pytorch/issues/139550).
        without_waiting = torch.device(device).type == "cuda"
        return self._map(lambda tensor: tensor.to(device, non_blocking=without_waiting))

    def pin_memory(self) -> "Batch":
        """Copy to page-locked memory (called by the data loader)."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors: dict[str, Any] = {
            name: function(value) for name, value in values.items() if isinstance(value, Tensor)
        }
        return replace(self, **tensors)

    def __len__(self) -> int:
        return len(self.token_ids)


@dataclass(frozen=True)
class BatchRequest:
    """What one rank reads in one micro-step.

    Attributes:
        rows: its studies.
        epoch_seed: None for evaluation (nothing random).
        of_all_ranks: the studies of all ranks in this step, in rank order; shapes on which ranks have to agree follow
            from these. None where a rank does not know.
    """

    rows: NDArray[np.int64]
    epoch_seed: int | None = None
    of_all_ranks: NDArray[np.int64] | None = None


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
        raise UserError(f"usable training studies: {studies}, fewer than {ranks} ranks; start at most {studies}")
    if steps == 0:
        each = f"{ranks} x {batch_size}" if ranks > 1 else f"{batch_size}"
        raise UserError(
            f"usable training studies: {studies}, which do not fill one batch of {each}: "
            f"set training.batch_size={studies // ranks}, or give more studies"
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
        nearest: (studies, k) of `near.nearest_reports`, for batches of near reports; None shuffles.
    """

    def __init__(
        self,
        studies: int,
        batch_size: int,
        epoch_seed: int,
        start: int = 0,
        rank: int = 0,
        ranks: int = 1,
        nearest: NDArray[np.int64] | None = None,
    ) -> None:
        self.batch_size, self.epoch_seed, self.start = batch_size, epoch_seed, start
        self.rank, self.ranks = rank, ranks
        self.steps = steps_per_epoch(studies, batch_size, ranks)
        self.order = (
            np.random.default_rng(epoch_seed).permutation(studies)
            if nearest is None
            else order_of_near_pairs(nearest, epoch_seed)
        )

    def __iter__(self) -> Iterator[BatchRequest]:
        for step in range(self.start, self.steps):
            own, size = step * self.ranks + self.rank, self.batch_size
            whole = slice(step * self.ranks * size, (step + 1) * self.ranks * size)
            yield BatchRequest(self.order[own * size : (own + 1) * size], self.epoch_seed, self.order[whole])

    def __len__(self) -> int:
        return self.steps - self.start


def evaluation_order(studies: int, batch_size: int) -> list[BatchRequest]:
    """All rows in order; the last batch may be smaller."""
    parts = [np.arange(first, min(first + batch_size, studies)) for first in range(0, studies, batch_size)]
    return [BatchRequest(rows, None, rows) for rows in parts]
