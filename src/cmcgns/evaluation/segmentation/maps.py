"""Maps of the frozen encoder: computed once for every image and kept, as far as memory allows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cmcgns.data.images import Pixels, centre_crop
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.image_set import ImageSet
from cmcgns.evaluation.metrics import FloatArray, IntArray
from cmcgns.evaluation.segmentation.augment import turn_and_scale
from cmcgns.evaluation.segmentation.targets import Targets

_MIB = 1 << 20


@dataclass(frozen=True)
class Part:
    """One split: its images and what is to be drawn on them."""

    name: str
    images: ImageSet
    targets: Targets


class MapStore:
    """Serves maps and masks of any rows.

    Images are always encoded `batch_size` at a time (a smaller batch is filled up), so that an image's maps do not
    depend on how many others were asked for.

    Args:
        encoder: the frozen one.
        limit: MiB that kept maps may take on the encoder's device.
        batch_size: images encoded at once.

    Attributes:
        image_bytes: that the maps of one image take, measured.
    """

    def __init__(self, encoder: FrozenEncoder, limit: int, batch_size: int) -> None:
        self.encoder, self.limit, self.batch_size = encoder, limit * _MIB, batch_size
        one = self._encode(np.zeros((1, encoder.image_size, encoder.image_size), dtype=np.uint8))
        self.image_bytes = sum(level.numel() * level.element_size() for level in one)
        self._kept: dict[tuple[str, int], list[Tensor]] = {}

    @property
    def kept(self) -> int:
        """How many images have their maps in memory."""
        return len(self._kept)

    def keep(self, part: Part, rows: IntArray) -> None:
        """Compute the maps of rows that have none yet, until the memory is used up."""
        room = max(0, self.limit // self.image_bytes - self.kept)
        missing = np.array([row for row in rows if (part.name, int(row)) not in self._kept], dtype=np.intp)[:room]
        for start in range(0, len(missing), self.batch_size):
            chosen = missing[start : start + self.batch_size]
            maps = self._encode(np.asarray(part.images.pixels[chosen]))
            for place, row in enumerate(chosen):
                self._kept[part.name, int(row)] = [level[place].clone() for level in maps]

    def serve(self, part: Part, rows: IntArray, changes: FloatArray | None = None) -> tuple[list[Tensor], Tensor]:
        """Maps and masks.

        Args:
            part: the split.
            rows: (b,) row numbers of it, at most `batch_size`.
            changes: (b, 2) angle and scale of each image, see `augment`; such maps are always computed.

        Returns:
            Maps (b, width, h, w), finest first, and masks (b, s, s), on the encoder's device.
        """
        masks = part.targets.of(rows)
        keys = [(part.name, int(row)) for row in rows]
        if changes is None and all(key in self._kept for key in keys):
            levels = zip(*(self._kept[key] for key in keys), strict=True)
            maps = [torch.stack(level) for level in levels]
        else:
            pixels = np.asarray(part.images.pixels[rows])
            if changes is not None:
                pixels, masks = turn_and_scale(centre_crop(pixels, self.encoder.image_size), masks, changes)
            maps = self._encode(pixels)
        maps = [level.contiguous(memory_format=torch.channels_last) for level in maps]
        return maps, torch.from_numpy(masks).to(self.encoder.device)

    def _encode(self, pixels: Pixels) -> list[Tensor]:
        """(b, S, S) -> maps of b images."""
        wanted = len(pixels)
        filled = pixels[np.arange(self.batch_size) % wanted]
        return [level[:wanted] for level in self.encoder.maps(self.encoder.tensors(filled))]
