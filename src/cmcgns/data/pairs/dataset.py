"""Radiographs and tokenized reports, served in whole batches."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from cmcgns.data.images.place import Pixels
from cmcgns.data.pairs.batch import Batch, BatchRequest
from cmcgns.data.pairs.images import StoredImages, read_images, twice_the_side
from cmcgns.data.pairs.rows import PairTable
from cmcgns.data.reports.tokens import ReportTokens, drop_sentences, length_groups, round_up, tokenize_reports, trim
from cmcgns.settings.config import DataSettings

_PARTS = 4  # of a batch, by the length of their reports
_SENTENCES, _PLACES = 4, 64  # fixed shapes are multiples of these: sentences a report, and of a batch


class PairDataset(Dataset[Batch]):
    """Serves `BatchRequest -> Batch`.

    Args:
        images: (n, S, S) uint8, may be memory-mapped, or read from shards.
        tokens: the n reports.
        study_ids: n names.
        rows: the rows that belong to this split; requests count within them.
        settings: crop, affine and jitter.
        fixed_shapes: pad to few, rounded shapes on which all ranks agree (a GPU prefers few of them), instead of the
            batch's own.
        fine: (n, 2S, 2S) uint8, the same pictures of twice the side; batches then hold `fine_images`.
    """

    def __init__(
        self,
        images: StoredImages,
        tokens: ReportTokens,
        study_ids: Sequence[str],
        rows: NDArray[np.int64],
        settings: DataSettings,
        fixed_shapes: bool = False,
        fine: StoredImages | None = None,
    ) -> None:
        self.fine = fine
        self.images, self.tokens, self.study_ids = images, tokens, list(study_ids)
        self.rows, self.settings, self.fixed_shapes = np.asarray(rows), settings, fixed_shapes

    def subset(
        self, rows: NDArray[np.int64], images: StoredImages | None = None, fine: StoredImages | None = None
    ) -> "PairDataset":
        """Some rows of the same studies.

        Args:
            rows: of all n studies.
            images: read from there instead, (n, S, S) as well.
            fine: the same, of twice the side.
        """
        images, fine = self.images if images is None else images, self.fine if fine is None else fine
        return PairDataset(images, self.tokens, self.study_ids, rows, self.settings, self.fixed_shapes, fine)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, request: BatchRequest) -> Batch:
        rows = self.rows[request.rows]
        draws = None
        if request.epoch_seed is not None:
            draws = _draws(request.epoch_seed, 1, (len(self.rows), 4))[request.rows]
        arrays = self.tokens.padded(rows, *self._bounds(request))
        if request.epoch_seed is not None and self.settings.sentence_dropout > 0:
            chances = _draws(request.epoch_seed, 2, (len(self.rows), self.settings.max_sentences), np.float32)
            chances = chances[request.rows, : arrays["sentence_mask"].shape[1]]
            drop_sentences(arrays, chances, self.settings.sentence_dropout, self.tokens.padding)
            if not self.fixed_shapes:
                trim(arrays)
        names = tuple(self.study_ids[row] for row in rows)
        order, lengths = length_groups(
            arrays["token_mask"].sum(1), _PARTS, self._multiple, arrays["token_mask"].shape[1]
        )
        arrays |= {"token_order": order, "sentence_places": self._places(request, arrays["sentence_mask"])}
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        if self.fine is not None:
            tensors["fine_images"] = self._view(self.fine[rows], draws, request, times=2)
        views = self._view(self.images[rows], draws, request)
        return Batch(images=views, study_ids=names, token_lengths=lengths, **tensors)

    def _bounds(self, request: BatchRequest) -> tuple[int, int] | tuple[()]:
        """Word pieces and sentences that all ranks pad to; nothing where a batch may have its own shape."""
        if not self.fixed_shapes:
            return ()
        most = self.settings.max_tokens, self.settings.max_sentences
        if request.of_all_ranks is None:
            return most
        tokens, sentences = self.tokens.counts(self.rows[request.of_all_ranks])
        return (
            min(round_up(int(tokens.max()), self._multiple), most[0]),
            min(round_up(int(sentences.max()), _SENTENCES), most[1]),
        )

    def _places(self, request: BatchRequest, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        """(R,) places of the real sentences, then of some padding: every rank has the same R."""
        count = int(mask.sum())
        if self.fixed_shapes:
            count = mask.size
            if request.of_all_ranks is not None:
                _, sentences = self.tokens.counts(self.rows[request.of_all_ranks])
                count = min(round_up(int(sentences.reshape(-1, len(mask)).sum(1).max()), _PLACES), count)
        return np.argsort(~mask.ravel(), kind="stable")[:count]

    @property
    def _multiple(self) -> int:
        """Of the padded numbers of word pieces."""
        return 32 if self.fixed_shapes else 8

    def _view(
        self, stored: Any, draws: NDArray[np.float64] | None, request: BatchRequest, times: int = 1
    ) -> torch.Tensor:
        """(B, 1, H, W) normalised; of stored pictures of `times` the side the same view, `times` as large."""
        offsets, size = times * self._offsets(draws, len(stored)), times * self.settings.image_size
        if request.epoch_seed is not None and self.settings.affine > 0:
            turns = _draws(request.epoch_seed, 3, (len(self.rows), 4))[request.rows]
            normalised = affine_crop(stored, offsets, turns, size, self.settings.affine)
        else:
            crops = [image[y : y + size, x : x + size] for image, (y, x) in zip(stored, offsets, strict=True)]
            normalised = normalise_pixels(np.stack(crops))
        jitter = self.settings.intensity_jitter
        if draws is not None and jitter > 0:
            change = torch.from_numpy((2 * draws[:, 2:, None, None] - 1) * jitter).float()
            normalised = (normalised * (1 + change[:, 0]) + change[:, 1]).clamp_(-1, 1)
        return normalised[:, None]

    def _offsets(self, draws: NDArray[np.float64] | None, studies: int) -> NDArray[np.int64]:
        """(B, 2) row and column where the crops begin."""
        slack = self.images.shape[1] - self.settings.image_size
        if draws is not None and self.settings.random_crop:
            return np.minimum((draws[:, :2] * (slack + 1)).astype(np.int64), slack)
        return np.full((studies, 2), slack // 2)


def pair_dataset(
    pairs: PairTable,
    tokenizer: Any,
    settings: DataSettings,
    images: StoredImages | None = None,
    fixed_shapes: bool = False,
    fine: StoredImages | Literal["read"] | None = None,
) -> PairDataset:
    """The rows of a table as a data set.

    Args:
        pairs: rows whose images cannot be read are left out, if the settings say so.
        tokenizer: for the reports.
        settings: sizes, bounds and augmentation.
        images: of all rows; by default they are read now.
        fixed_shapes: pad to few shapes on which all ranks agree.
        fine: the same pictures of twice the side, or `read` for reading them now.

    Raises:
        UserError: images that cannot be read, unless they are to be left out.
    """
    images = read_images(pairs, settings) if images is None else images
    if isinstance(fine, str):
        fine = read_images(pairs, twice_the_side(settings))
    tokens = tokenize_reports(pairs.frame["text"], tokenizer, settings.max_tokens, settings.max_sentences)
    names = pairs.frame["study_id"].tolist()
    return PairDataset(images, tokens, names, np.arange(len(names)), settings, fixed_shapes, fine)


def affine_crop(
    stored: Pixels, offsets: NDArray[np.int64], draws: NDArray[np.float64], size: int, strength: float
) -> torch.Tensor:
    """Crops of pictures that are turned, scaled and shifted about the crop's centre; bilinear, black outside.

    Args:
        stored: (B, S, S) uint8.
        offsets: (B, 2) row and column where the crops begin.
        draws: (B, 4) in [0, 1): angle, scale, shift down, shift right.
        size: side of the crops.
        strength: largest angle in radians, relative change of scale, and shift as a share of the crop.

    Returns:
        (B, size, size) float, -1 to 1.
    """
    change = (2 * draws - 1) * strength
    angle, scale = change[:, 0], 1 + change[:, 1]
    centre = offsets + (size - 1) / 2 - change[:, 2:] * size
    # A pixel of the crop at (v, u) from its centre comes from (y, x) in the stored picture.
    cosine, sine = np.cos(angle) / scale, np.sin(angle) / scale
    # grid_sample counts from -1 to 1 between the outer edges of the picture.
    place, unit = np.arange(size) - (size - 1) / 2, 2 / stored.shape[1]
    along_u = np.stack([cosine[:, None] * place, sine[:, None] * place], -1) * unit
    along_v = np.stack([-sine[:, None] * place, cosine[:, None] * place], -1) * unit
    along_v += ((centre[:, ::-1] + 0.5) * unit - 1)[:, None]
    u, v = torch.from_numpy(along_u).float()[:, None], torch.from_numpy(along_v).float()[:, :, None]
    result, grid = torch.empty(len(stored), size, size), torch.empty(1, size, size, 2)
    for index, image in enumerate(stored):  # one at a time stays in the processor's cache
        torch.add(v[index], u[index], out=grid[0])
        pixels = torch.from_numpy(np.asarray(image)).float()[None, None]
        result[index] = torch.nn.functional.grid_sample(pixels, grid, align_corners=False)[0, 0]
    return result.div_(127.5).sub_(1)


def normalise_pixels(pixels: Pixels) -> torch.Tensor:
    """Gray values 0 to 255 -> -1 to 1 (mean = standard deviation = 0.5)."""
    return torch.from_numpy(pixels).float().div_(127.5).sub_(1)


@lru_cache(maxsize=6)
def _draws(epoch_seed: int, stream: int, shape: tuple[int, int], dtype: Any = np.float64) -> NDArray[Any]:
    """Uniform numbers of every study in this epoch.

    Drawn for all studies at once, so that a study's view depends neither on its batch nor on the number of ranks.

    Args:
        epoch_seed: of the request.
        stream: 1: row, column, contrast, brightness; 2: the sentences; 3: angle, scale, shift down, shift right.
        shape: studies, and numbers of each.
        dtype: float32 takes half the memory.
    """
    return np.random.default_rng([epoch_seed, stream]).random(shape, dtype=dtype)
