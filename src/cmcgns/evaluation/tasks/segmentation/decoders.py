"""Decoders over maps of a frozen encoder (U-Net for pyramids, SETR's for transformers), and a store of the maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cmcgns.common.errors import UserError
from cmcgns.data.images.place import Pixels, centre_crop
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.image_set import ImageSet
from cmcgns.evaluation.regions import Targets
from cmcgns.evaluation.task_settings.learned import SegmentationSettings
from cmcgns.metrics.ranking import BoolArray, FloatArray, IntArray


class UNetDecoder(nn.Module):
    """U-Net's decoder (Ronneberger et al., MICCAI 2015) as segmentation_models_pytorch builds it, with its head.

    Maps need not halve at every step: each block enlarges to the next map's own size, which may be the same one.
    Where an encoder's finest map is coarser than half the image, steps without a map are put in between.

    Args:
        widths: channels of the maps, finest first.
        strides: of the maps, rising.
        size: side of the image.
        channels: of the blocks, coarsest first; the first is repeated where there are more blocks, and the first
            ones are left out where there are fewer.

    Raises:
        UserError: the library is not installed.
    """

    def __init__(self, widths: Sequence[int], strides: Sequence[int], size: int, channels: Sequence[int]) -> None:
        super().__init__()
        try:
            from segmentation_models_pytorch.base import SegmentationHead
            from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head
            from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
        except ImportError as error:
            raise UserError(f"the U-Net decoder needs {error.name}: pip install 'cmcgns[evaluate]'") from error

        between: list[int] = []
        while (stride := (between[-1] if between else strides[0]) // 2) >= 2:
            between.append(stride)
        self.size, self.between = size, [size // stride for stride in reversed(between)]
        blocks = len(between) + len(widths)
        chosen = [channels[0]] * max(0, blocks - len(channels)) + list(channels[max(0, len(channels) - blocks) :])
        self.decoder = UnetDecoder([0] * (1 + len(between)) + list(widths), chosen, n_blocks=blocks)
        self.head = SegmentationHead(chosen[-1], 1)
        initialize_decoder(self.decoder)
        initialize_head(self.head)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps (B, width, h, w), finest first -> logits (B, size, size)."""
        finer = [maps[0].new_empty(len(maps[0]), 0, side, side) for side in (self.size, *self.between)]
        logits: Tensor = self.head(self.decoder([*finer, *maps]))
        return logits[:, 0]


class SetrDecoder(nn.Module):
    """SETR's decoders of a transformer's last map (Zheng et al., CVPR 2021, section 3.2), bilinear.

    Naive: two 1×1 convolutions, then one enlargement. Progressive upsampling (PUP): 3×3 convolutions, each
    followed by an enlargement by two until the image's size is reached.

    Args:
        width: channels of the map.
        stride: of the map.
        size: side of the image.
        channels: of the steps; the last is repeated where there are more steps. Naive takes the first.
        progressive: PUP.
    """

    def __init__(self, width: int, stride: int, size: int, channels: Sequence[int], progressive: bool) -> None:
        super().__init__()
        self.size, self.width = size, width
        steps = max(1, round(math.log2(stride))) if progressive else 1
        outputs = [channels[min(step, len(channels) - 1)] for step in range(steps)]
        kernel = 3 if progressive else 1
        self.steps = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            )
            for before, after in zip([width, *outputs], outputs, strict=False)
        )
        self.sides = [min(size, size // stride * 2 ** (step + 1)) for step in range(steps - 1)] + [size]
        self.progressive = progressive
        self.head = nn.Conv2d(outputs[-1], 1, kernel, padding=kernel // 2)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps (B, width, h, w), of which the last is used -> logits (B, size, size)."""
        last = maps[-1].permute(0, 2, 3, 1)
        found = functional.layer_norm(last, (self.width,)).permute(0, 3, 1, 2)  # blocks differ widely in scale
        for step, side in zip(self.steps, self.sides, strict=True):
            found = step(found)
            if self.progressive:
                found = _enlarge(found, side)
        logits: Tensor = self.head(found)
        return (logits if self.progressive else _enlarge(logits, self.size))[:, 0]


def _enlarge(maps: Tensor, side: int) -> Tensor:
    return functional.interpolate(maps, size=(side, side), mode="bilinear", align_corners=False)


def build_decoder(encoder: FrozenEncoder, settings: SegmentationSettings, seed: int) -> nn.Module:
    """A decoder with random weights that depend on the seed alone; the global random state is left as it was."""
    kind = decoder_name(encoder, settings)
    widths, strides, size = encoder.map_widths, encoder.strides, encoder.image_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder: nn.Module
        if kind == "unet":
            decoder = UNetDecoder(widths, strides, size, settings.unet_channels)
        else:
            decoder = SetrDecoder(widths[-1], strides[-1], size, settings.pup_channels, kind == "pup")
    return decoder.to(encoder.device)


def decoder_name(encoder: FrozenEncoder, settings: SegmentationSettings) -> str:
    """`unet`, `naive` or `pup`."""
    if settings.decoder != "auto":
        return settings.decoder
    return "unet" if encoder.is_pyramid else "pup"


@dataclass(frozen=True)
class MaskSplit:
    """One split: its images and what is to be drawn on them."""

    name: str
    images: ImageSet
    targets: Targets


class MapStore:
    """Maps and masks of any rows.

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
        self.encoder, self.limit, self.batch_size = encoder, limit * 2**20, batch_size
        one = self._encode(np.zeros((1, encoder.image_size, encoder.image_size), dtype=np.uint8))
        self.image_bytes = sum(level.numel() * level.element_size() for level in one)
        self._kept: dict[tuple[str, int], list[Tensor]] = {}

    @property
    def kept(self) -> int:
        """How many images have their maps in memory."""
        return len(self._kept)

    def keep(self, split: MaskSplit, rows: IntArray) -> None:
        """Compute the maps of rows that have none yet, until the memory is used up."""
        room = max(0, self.limit // self.image_bytes - self.kept)
        missing = np.array([row for row in rows if (split.name, int(row)) not in self._kept], dtype=np.intp)[:room]
        for start in range(0, len(missing), self.batch_size):
            chosen = missing[start : start + self.batch_size]
            maps = self._encode(np.asarray(split.images.pixels[chosen]))
            for place, row in enumerate(chosen):
                self._kept[split.name, int(row)] = [level[place].clone() for level in maps]

    def read(
        self, split: MaskSplit, rows: IntArray, changes: FloatArray | None = None
    ) -> tuple[list[Tensor], Tensor]:
        """Maps and masks.

        Args:
            split: of the images.
            rows: (b,) row numbers of it, at most `batch_size`.
            changes: (b, 2) angle and scale of each image, see `augment`; such maps are always computed.

        Returns:
            Maps (b, width, h, w), finest first, and masks (b, s, s), on the encoder's device.
        """
        masks = split.targets.of(rows)
        keys = [(split.name, int(row)) for row in rows]
        if changes is None and all(key in self._kept for key in keys):
            levels = zip(*(self._kept[key] for key in keys), strict=True)
            maps = [torch.stack(level) for level in levels]
        else:
            pixels = np.asarray(split.images.pixels[rows])
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


def turn_and_scale(pixels: Pixels, masks: BoolArray, changes: FloatArray) -> tuple[Pixels, BoolArray]:
    """Turn and scale squares about their centres; bilinear, black outside. Unchanged images come back as they are.

    Args:
        pixels: (b, s, s) uint8.
        masks: (b, s, s).
        changes: (b, 2) of :func:`cmcgns.evaluation.tasks.segmentation.train.draw_changes`.

    Returns:
        Both, changed alike; a mask's pixel is inside where at least half of its value is.
    """
    moved = np.flatnonzero((changes != [0.0, 1.0]).any(axis=1))
    if not len(moved):
        return pixels, masks
    angle, scale = torch.from_numpy(changes[moved]).float().unbind(1)
    cosine, sine, zero = angle.cos() / scale, angle.sin() / scale, torch.zeros_like(angle)
    matrix = torch.stack([cosine, -sine, zero, sine, cosine, zero], dim=1).view(-1, 2, 3)
    both = torch.stack([_floats(pixels[moved]), _floats(masks[moved]) * 255], dim=1)
    grid = functional.affine_grid(matrix, list(both.shape), align_corners=False)
    found = functional.grid_sample(both, grid, align_corners=False).numpy()
    pixels, masks = pixels.copy(), masks.copy()
    pixels[moved] = found[:, 0].round().astype(np.uint8)
    masks[moved] = found[:, 1] >= 127.5
    return pixels, masks


def _floats(values: Pixels | BoolArray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).float()
