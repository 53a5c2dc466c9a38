"""Decoders: from patch tokens to an image, or to a few channels a patch."""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ImageDecoder(nn.Module):
    """A small convolutional decoder; linear output.

    Every block doubles the side and halves the width. The last doubling is a sub-pixel convolution (Shi et al.,
    CVPR 2016): four values a place, at half the side. Convolutions at full size would cost more than an encoder.

    Args:
        dim: width of the tokens.
        width: channels of the first block.
        grid: (h, w) of the tokens.
        image_size: side of the square output in pixels.
    """

    def __init__(self, dim: int, width: int, grid: tuple[int, int], image_size: int) -> None:
        super().__init__()
        self.grid, self.image_size = grid, image_size
        doublings = max(1, round(math.log2(image_size / grid[0])))
        widths = [max(16, width >> step) for step in range(doublings)]
        self.stem = nn.Conv2d(dim, widths[0], 1)
        self.blocks = nn.ModuleList(_block(before, after) for before, after in itertools.pairwise(widths))
        self.output = nn.Conv2d(widths[-1], 4, 3, padding=1)
        # The four values of a place start alike; otherwise a grid of single pixels lies over the image and stays for
        # long (Aitken et al., arXiv 1707.02937).
        with torch.no_grad():
            self.output.weight.copy_(self.output.weight[:1].clone())
            self.output.bias.zero_()  # type: ignore[union-attr]

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, P, dim) tokens, row-major on the grid -> (B, 1, H, W)."""
        maps = self.stem(tokens.transpose(1, 2).unflatten(2, self.grid))
        for block in self.blocks:
            maps = block(F.interpolate(maps, scale_factor=2.0, mode="nearest"))
        image = F.pixel_shuffle(self.output(maps), 2)
        size = (self.image_size, self.image_size)
        if image.shape[-2:] != size:  # odd grids: the side is no power of two times theirs
            image = F.interpolate(image, size=size, mode="bilinear", align_corners=False)
        return image


class PatchDecoder(nn.Module):
    """Channels of every patch, rebuilt from the tokens of it and its neighbours; linear output.

    Args:
        dim: width of the tokens.
        width: channels of the blocks.
        grid: (h, w) of the tokens.
        channels: K of the output.
    """

    def __init__(self, dim: int, width: int, grid: tuple[int, int], channels: int) -> None:
        super().__init__()
        self.grid = grid
        self.stem = nn.Conv2d(dim, width, 1)
        self.blocks = nn.Sequential(_block(width, width), _block(width, width))
        self.output = nn.Conv2d(width, channels, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, P, dim) tokens, row-major on the grid -> (B, K, h, w)."""
        return self.output(self.blocks(self.stem(tokens.transpose(1, 2).unflatten(2, self.grid))))  # type: ignore[no-any-return]


def _block(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(math.gcd(8, after), after), nn.GELU())
