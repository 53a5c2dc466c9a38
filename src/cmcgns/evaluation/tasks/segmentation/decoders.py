"""Decoders over the maps of a frozen encoder: U-Net for pyramids, SETR's for transformers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from cmcgns.common.errors import UserError
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.protocols.task_settings import SegmentationSettings


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
        steps = max(1, round(torch.tensor(float(stride)).log2().item())) if progressive else 1
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
    """A decoder with random weights that depend on the seed alone; the global random state is left as it was.

    Args:
        encoder: whose maps it will read.
        settings: which one, and its channels.
        seed: of the weights.
    """
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
