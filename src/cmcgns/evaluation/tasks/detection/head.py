"""YOLOv3's head on three maps: a convolutional encoder's, or a simple feature pyramid on a transformer's last one.

Redmon and Farhadi, YOLOv3: An Incremental Improvement, 2018, section 2.3: at each level five convolutions, from which
the next finer level gets a half as wide, enlarged copy, then one more convolution and the outputs. There is one
class, so objectness is the score and there are no class logits.

Li et al., Exploring Plain Vision Transformer Backbones for Object Detection (ViTDet), ECCV 2022, section 3: all
levels are made from the last map alone, with half its stride, the same, and twice the stride.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.tasks.detection.boxes import PER_LEVEL

OUTPUTS = 5
_RARE = 0.01  # share of outputs with an object at the start (Lin et al., Focal loss, 2017, section 3.3)


class YoloHead(nn.Module):
    """Maps, finest first -> outputs (B, N, 5) in the order of `AnchorGrid`.

    Args:
        map_widths: channels of each map, finest first.
        width: channels at the coarsest level (512 in the paper), halved from level to level.
    """

    def __init__(self, map_widths: Sequence[int], width: int = 512) -> None:
        super().__init__()
        widths = [max(8, width >> level) for level in range(len(map_widths))]  # coarsest first
        inputs = list(reversed(map_widths))
        inputs[1:] = [own + handed_on for own, handed_on in zip(inputs[1:], widths[1:], strict=True)]
        self.bodies = nn.ModuleList(_body(*each) for each in zip(inputs, widths, strict=True))
        self.hand_on = nn.ModuleList(_convolution(*each, 1) for each in itertools.pairwise(widths))
        self.outputs = nn.ModuleList(_output(width) for width in widths)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (B, C, h, w), finest first -> (B, N, 5)."""
        found: list[Tensor] = []
        handed_on: Tensor | None = None
        for level, own in enumerate(reversed(maps)):
            if handed_on is not None:
                enlarged = functional.interpolate(self.hand_on[level - 1](handed_on), own.shape[2:], mode="nearest")
                own = torch.cat((own, enlarged), 1)
            handed_on = self.bodies[level](own)
            # (B, A·5, h, w) -> (B, h·w·A, 5)
            raw = self.outputs[level](handed_on).unflatten(1, (PER_LEVEL, OUTPUTS))
            found.append(raw.permute(0, 3, 4, 1, 2).flatten(1, 3))
        return torch.cat(found[::-1], 1)


def _convolution(inputs: int, outputs: int, side: int) -> nn.Module:
    convolution = nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.1))


def _body(inputs: int, width: int) -> nn.Module:
    layers = [_convolution(inputs, width, 1)]
    for _ in range(2):
        layers += [_convolution(width, 2 * width, 3), _convolution(2 * width, width, 1)]
    return nn.Sequential(*layers)


def _output(width: int) -> nn.Module:
    last = nn.Conv2d(2 * width, PER_LEVEL * OUTPUTS, 1)
    nn.init.normal_(last.weight, std=0.01)
    start = torch.zeros(PER_LEVEL, OUTPUTS)
    start[:, -1] = math.log(_RARE / (1 - _RARE))
    last.bias = nn.Parameter(start.flatten())
    return nn.Sequential(_convolution(width, 2 * width, 3), last)


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


def _lateral(inputs: int) -> nn.Module:
    from timm.layers import LayerNorm2d

    return nn.Sequential(
        nn.Conv2d(inputs, _PYRAMID_WIDTH, 1, bias=False),
        LayerNorm2d(_PYRAMID_WIDTH, eps=1e-5),
        nn.Conv2d(_PYRAMID_WIDTH, _PYRAMID_WIDTH, 3, padding=1, bias=False),
        LayerNorm2d(_PYRAMID_WIDTH, eps=1e-5),
    )


@torch.no_grad()
def level_grids(detector: Detector, maps: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Rows and columns of the head's levels, finest first."""
    return [(level.shape[2], level.shape[3]) for level in detector.levels(maps)]
