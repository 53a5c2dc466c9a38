"""Radiographs and tokenized reports, served in whole batches."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from cmcgns.config import DataSettings
from cmcgns.data.batch import Batch
from cmcgns.data.images import Pixels
from cmcgns.data.order import BatchRequest
from cmcgns.data.report_tokens import ReportTokens, drop_sentences, trim


class PairDataset(Dataset[Batch]):
    """Serves `BatchRequest -> Batch`.

    Args:
        images: (n, S, S) uint8, may be memory-mapped.
        tokens: the n reports.
        study_ids: n names.
        rows: the rows that belong to this split; requests count within them.
        settings: crop and jitter.
        fixed_shapes: pad to the bounds of the settings instead of the batch's own (ranks must agree on shapes,
            and a GPU prefers few of them).
    """

    def __init__(
        self,
        images: Pixels,
        tokens: ReportTokens,
        study_ids: Sequence[str],
        rows: NDArray[np.int64],
        settings: DataSettings,
        fixed_shapes: bool = False,
    ) -> None:
        self.images, self.tokens, self.study_ids = images, tokens, list(study_ids)
        self.rows, self.settings, self.fixed_shapes = np.asarray(rows), settings, fixed_shapes

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, request: BatchRequest) -> Batch:
        rows = self.rows[request.rows]
        draws = None
        if request.epoch_seed is not None:
            draws = _epoch_draws(request.epoch_seed, len(self.rows))[request.rows]
        bounds = (self.settings.max_tokens, self.settings.max_sentences) if self.fixed_shapes else ()
        arrays = self.tokens.padded(rows, *bounds)
        if request.epoch_seed is not None and self.settings.sentence_dropout > 0:
            chances = _sentence_draws(request.epoch_seed, len(self.rows), self.settings.max_sentences)
            chances = chances[request.rows, : arrays["sentence_mask"].shape[1]]
            drop_sentences(arrays, chances, self.settings.sentence_dropout, self.tokens.padding)
            if not self.fixed_shapes:
                trim(arrays)
        names = tuple(self.study_ids[row] for row in rows)
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return Batch(images=self._crop(rows, draws), study_ids=names, **tensors)

    def _crop(self, rows: NDArray[np.int64], draws: NDArray[np.float64] | None) -> torch.Tensor:
        size, stored = self.settings.image_size, self.images.shape[1]
        slack = stored - size
        offsets = np.full((len(rows), 2), slack // 2)
        if draws is not None and self.settings.random_crop:
            offsets = np.minimum((draws[:, :2] * (slack + 1)).astype(np.int64), slack)
        side = np.arange(size)
        y, x = offsets[:, :1] + side, offsets[:, 1:] + side
        pixels = self.images[rows[:, None, None], y[:, :, None], x[:, None, :]]
        normalised = normalise_pixels(pixels)
        jitter = self.settings.intensity_jitter
        if draws is not None and jitter > 0:
            change = torch.from_numpy((2 * draws[:, 2:, None, None] - 1) * jitter).float()
            normalised = (normalised * (1 + change[:, 0]) + change[:, 1]).clamp_(-1, 1)
        return normalised[:, None]


def normalise_pixels(pixels: Pixels) -> torch.Tensor:
    """Gray values 0 to 255 -> -1 to 1 (mean = standard deviation = 0.5)."""
    return torch.from_numpy(pixels).float().div_(127.5).sub_(1)


@lru_cache(maxsize=2)
def _epoch_draws(epoch_seed: int, studies: int) -> NDArray[np.float64]:
    """(n, 4) uniform numbers: row, column, contrast, brightness of every study in this epoch.

    Drawn for all studies at once, so that a study's view depends neither on its batch nor on the number of ranks.
    """
    return np.random.default_rng([epoch_seed, 1]).random((studies, 4))


@lru_cache(maxsize=2)
def _sentence_draws(epoch_seed: int, studies: int, sentences: int) -> NDArray[np.float32]:
    """(n, M) uniform numbers of every study's sentences in this epoch."""
    return np.random.default_rng([epoch_seed, 2]).random((studies, sentences), dtype=np.float32)


def make_loader(dataset: PairDataset, order: Any, workers: int = 0, pin_memory: bool = False) -> DataLoader[Batch]:
    """A loader whose items are whole batches, in the given order.

    Args:
        dataset: serves the requests.
        order: iterable of `BatchRequest` with a length.
        workers: loader processes.
        pin_memory: page-locked copies, for a GPU.
    """
    return DataLoader(
        dataset,
        sampler=order,
        batch_size=None,
        num_workers=workers,
        pin_memory=pin_memory,
        prefetch_factor=4 if workers else None,
    )
