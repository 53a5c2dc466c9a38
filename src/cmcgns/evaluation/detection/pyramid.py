"""Three levels for the head: a convolutional encoder's maps, or a simple feature pyramid on a transformer's last map.

Li et al., Exploring Plain Vision Transformer Backbones for Object Detection (ViTDet), ECCV 2022, section 3: all
levels are made from the last map alone, with half its stride, the same, and twice the stride.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from cmcgns.evaluation.detection.head import YoloHead
from cmcgns.evaluation.encoder import FrozenEncoder

LEVELS = 3
_PYRAMID_WIDTH = 256


def choose_maps(encoder: FrozenEncoder) -> list[int]:
    """Numbers of the encoder's maps, finest first: the deepest of each of the three coarsest strides, else the last.

    A ResNet gives strides 8, 16, 32; with an output stride of 16 it gives 4, 8, 16. A transformer's maps have one
    stride, so the last one alone is taken.
    """
    deepest = {stride: number for number, stride in enumerate(encoder.strides)}
    coarsest = sorted(deepest)[-LEVELS:]
    return [deepest[stride] for stride in coarsest] if len(coarsest) == LEVELS else [len(encoder.strides) - 1]


class Detector(nn.Module):
    """What is trained: the head, below it the pyramid if there is only one map.

    Args:
        map_widths: channels of the maps, finest first: three or one.
        width: of the head.
    """

    def __init__(self, map_widths: Sequence[int], width: int) -> None:
        super().__init__()
        self.pyramid = SimpleFeaturePyramid(map_widths[0]) if len(map_widths) == 1 else None
        self.head = YoloHead([_PYRAMID_WIDTH] * LEVELS if self.pyramid else map_widths, width)

    def levels(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The head's three maps, finest first."""
        found: list[Tensor] = self.pyramid(maps[0]) if self.pyramid is not None else list(maps)
        return found

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """The encoder's maps -> outputs (B, N, 5)."""
        raw: Tensor = self.head(self.levels(maps))
        return raw


class SimpleFeaturePyramid(nn.Module):
    """One map (B, C, h, w) -> maps of 256 channels with 2h, h, h/2 rows (rounded up)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.finer = nn.ConvTranspose2d(width, half, 2, stride=2)
        self.coarser = nn.MaxPool2d(2, ceil_mode=True)
        self.laterals = nn.ModuleList(_lateral(each) for each in (half, width, width))

    def forward(self, last: Tensor) -> list[Tensor]:
        """Finest first."""
        maps = (self.finer(last), last, self.coarser(last))
        return [lateral(each) for lateral, each in zip(self.laterals, maps, strict=True)]


class _ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, h, w)."""

    def forward(self, maps: Tensor) -> Tensor:
        last = maps.movedim(1, -1)
        return functional.layer_norm(last, self.normalized_shape, self.weight, self.bias, self.eps).movedim(-1, 1)


def _lateral(inputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, _PYRAMID_WIDTH, 1, bias=False),
        _ChannelNorm(_PYRAMID_WIDTH),
        nn.Conv2d(_PYRAMID_WIDTH, _PYRAMID_WIDTH, 3, padding=1, bias=False),
        _ChannelNorm(_PYRAMID_WIDTH),
    )


@torch.no_grad()
def level_grids(detector: Detector, maps: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Rows and columns of the head's levels, finest first."""
    return [(level.shape[2], level.shape[3]) for level in detector.levels(maps)]
