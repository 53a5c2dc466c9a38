"""Maps of a frozen encoder: computed once, kept on disk in half precision, read a batch at a time."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cmcgns.common.errors import UserError
from cmcgns.common.files import write_text
from cmcgns.data.images.cache import Pixels
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.metrics.ranking import IntArray

_BATCH = 32
_NOTED_EVERY = 20.0  # seconds: what an interruption may cost
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
        folder.mkdir(parents=True, exist_ok=True)
        base = folder / f"maps-{_fingerprint(encoder, pixels, size)}"
        self._files = [Path(f"{base}-{number}.npy") for number in chosen]
        there = all(file.is_file() for file in self._files)
        self.kept = there or self.bytes <= min(limit, shutil.disk_usage(folder).free / _SPARE)
        if self.kept and not there:
            self._fill(progress)
        self._stored = [np.load(file, mmap_mode="r", allow_pickle=False) for file in self._files] if self.kept else []

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, rows: IntArray) -> list[Tensor]:
        """Maps (B, C, h, w) float32 of some images, finest first, on the encoder's device."""
        if not self.kept:
            return self._compute(rows)
        device = self.encoder.device
        return [torch.from_numpy(stored[rows]).to(device).float() for stored in self._stored]

    @torch.no_grad()
    def _compute(self, rows: IntArray) -> list[Tensor]:
        maps = self.encoder.maps(self.encoder.tensors(self.pixels[rows], self.size))
        found = [maps[number].float().clamp(-_HIGHEST, _HIGHEST) for number in self.chosen]
        if not all(bool(each.isfinite().all()) for each in found):
            raise UserError(f"{self.encoder.name}: its maps hold values that are not finite")
        return [each.half().float().contiguous() for each in found]  # rounded as the files are

    def _fill(self, progress: Progress) -> None:
        """Write the files, going on where an interrupted call stopped."""
        note = self._files[0].with_suffix(".done")
        partial = [file.with_suffix(".partial") for file in self._files]
        resumed = note.is_file() and all(file.is_file() for file in partial)
        start = int(note.read_text("utf-8")) if resumed else 0
        arrays = [self._open(file, shape, resumed) for file, shape in zip(partial, self.shapes, strict=True)]
        noted = time.monotonic()
        for first in range(start, len(self), _BATCH):
            rows = np.arange(first, min(first + _BATCH, len(self)))
            for array, values in zip(arrays, self._compute(rows), strict=True):
                array[first : first + len(rows)] = values.half().cpu().numpy()
            progress("maps of the encoder", (rows[-1] + 1) / len(self))
            if time.monotonic() - noted > _NOTED_EVERY:
                _flush(arrays)
                write_text(note, str(rows[-1] + 1))
                noted = time.monotonic()
        _flush(arrays)
        for file, final in zip(partial, self._files, strict=True):
            file.replace(final)
        note.unlink(missing_ok=True)

    def _open(self, file: Path, shape: tuple[int, ...], resumed: bool) -> npt.NDArray[np.float16]:
        mode = "r+" if resumed else "w+"
        opened: npt.NDArray[np.float16] = np.lib.format.open_memmap(
            file, mode=mode, dtype=np.float16, shape=(len(self), *shape)
        )
        return opened


def _flush(arrays: list[npt.NDArray[np.float16]]) -> None:
    for array in arrays:
        if isinstance(array, np.memmap):
            array.flush()


def _fingerprint(encoder: FrozenEncoder, pixels: Pixels, size: int) -> str:
    """Equal ones mean equal maps."""
    digest = hashlib.sha256(f"{encoder.features_sha256} {pixels.shape} {size}".encode())
    for first in range(0, len(pixels), 1024):
        digest.update(pixels[first : first + 1024].tobytes())
    return digest.hexdigest()[:24]
