"""YOLOv3's head on three maps of any encoder.

Redmon and Farhadi, YOLOv3: An Incremental Improvement, 2018, section 2.3: at each level five convolutions, from which
the next finer level gets a half as wide, enlarged copy, then one more convolution and the outputs. There is one
class, so objectness is the score and there are no class logits.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from cmcgns.evaluation.detection.anchors import PER_LEVEL

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
