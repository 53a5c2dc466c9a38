"""Maps of a frozen encoder: computed once, kept on disk in half precision, read a batch at a time."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cmcgns.common.array_cache import MappedArray, cached_array
from cmcgns.common.errors import UserError
from cmcgns.data.images.place import Pixels
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.metrics.ranking import IntArray

_BATCH = 32
_BLOCK = 256  # images of a file: what an interruption may cost
_SPARE = 1.1  # of the disk's free space that files may not take
_HIGHEST = float(np.finfo(np.float16).max)

Progress = Callable[[str, float], None]


class FrozenMaps:
    """Some of an encoder's maps for every image of a split.

    Where the disk has no room (or `limit` forbids it) they are computed anew for every batch.

    Args:
        encoder: gives the maps.
        pixels: (n, S, S) uint8 squares.
        size: side of the centre crop that the encoder sees.
        chosen: numbers of the maps.
        folder: for the files; shared by all that use the same encoder and images.
        limit: bytes that the files may take.
        progress: told how many images are done.

    Raises:
        UserError: the encoder gives values that are not finite.
    """

    def __init__(
        self,
        encoder: FrozenEncoder,
        pixels: Pixels,
        size: int,
        chosen: list[int],
        folder: Path,
        limit: float,
        progress: Progress,
    ) -> None:
        self.encoder, self.pixels, self.size, self.chosen = encoder, pixels, size, chosen
        example = self._compute(np.arange(1))
        self.shapes = [tuple(each.shape[1:]) for each in example]
        self.bytes = sum(2 * len(pixels) * int(np.prod(shape)) for shape in self.shapes)
        self._kind = np.dtype(
            [(str(number), np.float16, shape) for number, shape in zip(chosen, self.shapes, strict=True)]
        )
        levels = "-".join(map(str, chosen))
        base = folder / f"maps-{_fingerprint(encoder, pixels, size)}-{levels}"
        folder.mkdir(parents=True, exist_ok=True)
        starts = range(0, len(pixels), _BLOCK)
        files = [base / f"{start}.npy" for start in starts]
        there = all(file.is_file() for file in files)
        self.kept = there or self.bytes <= min(limit, shutil.disk_usage(folder).free / _SPARE)
        blocks = zip(files, starts, strict=True) if self.kept else ()
        self._blocks = [self._block(file, start, progress) for file, start in blocks]

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, rows: IntArray) -> list[Tensor]:
        """Maps (B, C, h, w) float32 of some images, finest first, on the encoder's device."""
        if not self.kept:
            return self._compute(rows)
        device = self.encoder.device
        found = []
        for name, shape in zip(self._kind.names or (), self.shapes, strict=True):
            each = [self._blocks[row // _BLOCK][name][row % _BLOCK] for row in rows]
            stored = np.array(each, dtype=np.float16).reshape(len(rows), *shape)
            found.append(torch.from_numpy(stored).to(device).float())
        return found

    @torch.no_grad()
    def _compute(self, rows: IntArray) -> list[Tensor]:
        maps = self.encoder.maps(self.encoder.tensors(self.pixels[rows], self.size))
        found = [maps[number].float().clamp(-_HIGHEST, _HIGHEST) for number in self.chosen]
        if not all(bool(each.isfinite().all()) for each in found):
            raise UserError(f"{self.encoder.name}: its maps hold values that are not finite")
        return [each.half().float().contiguous() for each in found]  # rounded as the files are

    def _block(self, file: Path, start: int, progress: Progress) -> MappedArray:
        """The maps of some successive images; interrupted, a call goes on after the last whole block."""

        def fill(array: MappedArray, places: Sequence[int]) -> None:
            for first in range(0, len(places), _BATCH):
                part = slice(first, min(first + _BATCH, len(places)))
                rows = np.arange(start + part.start, start + part.stop)
                for name, values in zip(self._kind.names or (), self._compute(rows), strict=True):
                    array[name][part] = values.half().cpu().numpy()
                progress("maps of the encoder", (rows[-1] + 1) / len(self))

        return cached_array(file, (min(_BLOCK, len(self) - start),), self._kind, fill)


def _fingerprint(encoder: FrozenEncoder, pixels: Pixels, size: int) -> str:
    """Equal ones mean equal maps."""
    digest = hashlib.sha256(f"{encoder.features_sha256} {pixels.shape} {size}".encode())
    for first in range(0, len(pixels), 1024):
        digest.update(pixels[first : first + 1024].tobytes())
    return digest.hexdigest()[:24]
