"""L_re: hidden regions of the radiograph are rebuilt with the help of the report (CM-MIR)."""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmcgns.common.errors import UserError
from cmcgns.models.freeze import running_statistics_kept
from cmcgns.models.model import ImageReportModel
from cmcgns.objectives.collective import rank, sum_over_ranks, total, world_size
from cmcgns.objectives.cross_attention import CrossModalAttention
from cmcgns.settings.config import ObjectiveSettings


def draw_hidden(studies: int, patches: int, ratio: float, generator: torch.Generator) -> Tensor:
    """Positions to hide: in every study the same number, round(ratio · P), at random.

    Returns:
        (B, P) true where hidden, on the generator's device.
    """
    noise = torch.rand(studies, patches, generator=generator, device=generator.device)
    return noise.argsort(1).argsort(1) < round(ratio * patches)


def to_pixels(hidden: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """(B, P) positions -> (B, 1, H, W) pixels, each position covering its cell of the grid."""
    return F.interpolate(hidden.float().unflatten(1, grid)[:, None], size=size, mode="nearest").bool()


class MaskedReconstruction(nn.Module):
    """Hides positions of f_I behind a learned token and gives back the image.

    The decoder sees the hidden tokens beside f_R2I, which is *recomputed* with queries made of the hidden tokens
    plus a position embedding: a query made of the true token would carry what is to be rebuilt.

    Args:
        settings: of the objective.
        grid: (h, w) of the patch tokens.
        image_size: side of the square image in pixels.
    """

    def __init__(self, settings: ObjectiveSettings, grid: tuple[int, int], image_size: int) -> None:
        super().__init__()
        self.settings, self.grid = settings, grid
        patches = grid[0] * grid[1]
        if settings.reconstruct == "hidden" and not round(settings.mask_ratio * patches):
            raise UserError(
                f"objective.mask_ratio={settings.mask_ratio:g} hides none of the {patches} positions, so there is "
                "nothing to rebuild: set a larger one, or objective.reconstruct=everywhere"
            )
        self.cross_modal = settings.reconstruction == "cross_modal"
        dim = settings.dim
        self.mask_token = nn.Parameter(torch.randn(dim) * dim**-0.5) if settings.mask == "features" else None
        self.position = None
        if self.cross_modal and settings.query == "masked":
            self.position = nn.Parameter(torch.randn(patches, dim) * dim**-0.5)
        width = 2 * dim if self.cross_modal else dim
        self.norm = nn.LayerNorm(width)
        self.decoder = ImageDecoder(width, settings.decoder_width, grid, image_size)

    def draw(self, studies: int, seed: int, device: torch.device) -> Tensor:
        """(B, P) positions to hide in the studies of this rank: none outside training."""
        patches = self.grid[0] * self.grid[1]
        if not self.training:
            return torch.zeros(studies, patches, dtype=torch.bool, device=device)
        # Drawn for the batch of all ranks, then sliced: two ranks hide what one rank of twice the batch would.
        generator = torch.Generator(device).manual_seed(seed)
        hidden = draw_hidden(studies * world_size(), patches, self.settings.mask_ratio, generator)
        return hidden[rank() * studies : (rank() + 1) * studies]

    def seen_patches(self, model: ImageReportModel, patches: Tensor, images: Tensor, hidden: Tensor) -> Tensor:
        """What `reconstruct` starts from: f_I, or with `mask: pixels` that of images painted over with mid-gray.

        Args:
            model: that gave the patches; asked once more for painted images.
            patches: (B, P, D) f_I of the whole images.
            images: (B, 1, H, W).
            hidden: (B, P) true where hidden.
        """
        if self.settings.mask == "features":
            return patches
        painted = images * ~to_pixels(hidden, self.grid, (images.shape[-2], images.shape[-1]))
        with running_statistics_kept(model.image_encoder):  # evaluation sees whole images only
            return model.project_patches(model.image_encoder.tokens(painted))

    def reconstruct(
        self,
        patches: Tensor,
        hidden: Tensor,
        sentences: Tensor,
        sentence_mask: Tensor,
        attention: CrossModalAttention,
    ) -> Tensor:
        """Rebuild images.

        Args:
            patches: (B, P, D) f_I, or the tokens of the painted-over image with `mask: pixels`.
            hidden: (B, P) true where hidden.
            sentences: (B, M, D).
            sentence_mask: (B, M).
            attention: the cross-modal attention of the alignment losses.

        Returns:
            (B, 1, H, W) in the normalised pixel range, unbounded.
        """
        visible = patches
        if self.mask_token is not None:
            visible = torch.where(hidden[:, :, None], self.mask_token.to(patches.dtype), patches)
        tokens = visible
        if self.cross_modal:
            query = patches if self.position is None else visible + self.position
            attended, _ = attention.text_to_image(query, sentences, sentence_mask)
            tokens = torch.cat([visible, attended], dim=-1)
        return self.decoder(self.norm(tokens))  # type: ignore[no-any-return]

    def forward(self, reconstructed: Tensor, images: Tensor, hidden: Tensor) -> Tensor:
        """Mean absolute error over the hidden regions; everywhere if so set, and outside training."""
        error = (reconstructed.float() - images.float()).abs()
        region = torch.ones_like(images, dtype=torch.bool)
        if self.settings.reconstruct == "hidden" and self.training:
            region = to_pixels(hidden, self.grid, (images.shape[-2], images.shape[-1]))
        return sum_over_ranks((error * region).sum() / total(region.sum()).clamp(min=1))


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
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(math.gcd(8, after), after), nn.GELU())
            for before, after in itertools.pairwise(widths)
        )
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
