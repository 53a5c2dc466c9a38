"""L_re: hidden regions of the radiograph are rebuilt with the help of the report (CM-MIR)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmcgns.common.errors import UserError
from cmcgns.data.pairs.batch import Batch
from cmcgns.models.freeze import running_statistics_kept
from cmcgns.models.model import ImageReportModel
from cmcgns.objectives.collective import mean_where, own_rows, world_size
from cmcgns.objectives.cross_attention import CrossModalAttention
from cmcgns.objectives.decoders import ImageDecoder, PatchDecoder
from cmcgns.objectives.numerics import full_precision
from cmcgns.objectives.reconstruction_targets import high_frequencies, normalise_patches, patch_features, text_map
from cmcgns.settings.config import ObjectiveSettings

HEADS = {"features": ("patch_projection",), "text_map": ("image_pool", "image_projection")}
"""Targets that an average encoder makes, and the heads of the model that it needs for them."""


def draw_hidden(studies: int, patches: int, ratio: float, generator: torch.Generator) -> Tensor:
    """Positions to hide: in every study the same number, round(ratio · P), at random.

    Returns:
        (B, P) true where hidden, on the generator's device.
    """
    noise = torch.rand(studies, patches, generator=generator, device=generator.device)
    return noise.argsort(1).argsort(1) < round(ratio * patches)


def covered_pixels(hidden: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """(B, P) positions -> (B, 1, H, W) pixels, each position covering its cell of the grid."""
    return F.interpolate(hidden.float().unflatten(1, grid)[:, None], size=size, mode="nearest").bool()


class MaskedReconstruction(nn.Module):
    """Hides positions of f_I behind a learned token and gives back the image, or what else is the target.

    The decoder sees the hidden tokens beside f_R2I, which is *recomputed* with queries made of the hidden tokens
    plus a position embedding: a query made of the true token would carry what is to be rebuilt.

    Args:
        settings: of the objective.
        grid: (h, w) of the patch tokens.
        image_size: side of the square image in pixels.
        options: `options.` where the settings are those of a rival, for messages.

    Raises:
        UserError: a ratio that hides nothing, or leaves no token; patches of no whole number of pixels.
    """

    def __init__(
        self, settings: ObjectiveSettings, grid: tuple[int, int], image_size: int, options: str = ""
    ) -> None:
        super().__init__()
        self.settings, self.grid = settings, grid
        patches = grid[0] * grid[1]
        self.hidden_count = round(settings.mask_ratio * patches)
        self.image_size = image_size * settings.target_scale
        self._check(options)
        self.cross_modal = settings.reconstruction == "cross_modal"
        dim = settings.dim
        self.mask_token = nn.Parameter(torch.randn(dim) * dim**-0.5) if settings.mask != "pixels" else None
        self.position = None
        if self.cross_modal and settings.query == "masked":
            self.position = nn.Parameter(torch.randn(patches, dim) * dim**-0.5)
        width = 2 * dim if self.cross_modal else dim
        self.norm = nn.LayerNorm(width)
        self.decoder: nn.Module
        if settings.target in HEADS:
            channels = dim if settings.target == "features" else 1
            self.decoder = PatchDecoder(width, settings.decoder_width, grid, channels)
        else:
            self.decoder = ImageDecoder(width, settings.decoder_width, grid, self.image_size)

    def _check(self, options: str) -> None:
        settings, patches = self.settings, self.grid[0] * self.grid[1]
        ratio = f"objective.{options}mask_ratio={settings.mask_ratio:g}"
        if settings.reconstruct == "hidden" and not self.hidden_count:
            other = "" if options else ", or objective.reconstruct=everywhere"
            raise UserError(
                f"{ratio} hides none of the {patches} positions, so there is nothing to rebuild: set a larger "
                f"one{other}"
            )
        if self.hidden_count == patches:
            raise UserError(f"{ratio} hides all {patches} positions, so none is left to see: set a smaller one")
        if settings.target_per_patch and (self.image_size % self.grid[0] or self.image_size % self.grid[1]):
            of, other = (
                (f"objective.name={settings.name}", "")
                if options
                else ("objective.target_per_patch", ", or target_per_patch=false")
            )
            raise UserError(
                f"{of}: {self.image_size} pixels are no whole patches of a {self.grid[0]}×{self.grid[1]} grid: "
                f"set another data.image_size{other}"
            )

    def draw(self, studies: int, seed: int, device: torch.device) -> Tensor:
        """(B, P) positions to hide in the studies of this rank: none outside training."""
        patches = self.grid[0] * self.grid[1]
        if not self.training:
            return torch.zeros(studies, patches, dtype=torch.bool, device=device)
        # Drawn for the batch of all ranks, then sliced: two ranks hide what one rank of twice the batch would.
        generator = torch.Generator(device).manual_seed(seed)
        hidden = draw_hidden(studies * world_size(), patches, self.settings.mask_ratio, generator)
        return hidden[own_rows(studies)]

    def drop_reports(self, sentence_mask: Tensor, seed: int) -> Tensor:
        """(B, M) real sentences, of which some studies lose all in training (`report_dropout`)."""
        chance, studies = self.settings.report_dropout, len(sentence_mask)
        if not (self.training and chance):
            return sentence_mask
        # Another stream than that of the hidden positions, drawn for all ranks as well.
        generator = torch.Generator(sentence_mask.device).manual_seed(seed ^ 1)
        draws = torch.rand(studies * world_size(), 1, generator=generator, device=sentence_mask.device)
        return sentence_mask & (draws[own_rows(studies)] >= chance)

    def seen_patches(self, model: ImageReportModel, patches: Tensor, images: Tensor, hidden: Tensor) -> Tensor:
        """What `reconstruct` starts from: f_I, or with another `mask` that of a second pass over what is visible.

        Args:
            model: that gave the patches; asked once more for images painted over with mid-gray (`mask: pixels`), or
                for the visible patches alone (`mask: tokens`).
            patches: (B, P, D) f_I of the whole images.
            images: (B, 1, H, W).
            hidden: (B, P) true where hidden, round(mask_ratio · P) in every study.

        Returns:
            (B, P, D); with `mask: tokens` 0 where hidden.
        """
        if self.settings.mask == "features":
            return patches
        encoder = model.image_encoder
        if self.settings.mask == "tokens":
            visible = hidden.byte().argsort(dim=1, stable=True)[:, : hidden.shape[1] - self.hidden_count]
            found = model.project_patches(encoder.visible_tokens(images, visible))
            return found.new_zeros(patches.shape).scatter(1, visible[:, :, None].expand_as(found), found)
        painted = images * ~covered_pixels(hidden, self.grid, (images.shape[-2], images.shape[-1]))
        with running_statistics_kept(encoder):  # evaluation sees whole images only
            return model.project_patches(encoder.tokens(painted))

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
            patches: (B, P, D), as `seen_patches` gives them.
            hidden: (B, P) true where hidden.
            sentences: (B, M, D).
            sentence_mask: (B, M); a study without any true is rebuilt without a report: its f_R2I is 0.
            attention: the cross-modal attention of the alignment losses.

        Returns:
            As `target`, unbounded: (B, 1, H, W) in the normalised pixel range, or (B, K, h, w).
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

    @torch.no_grad()
    def target(self, net: ImageReportModel, model: ImageReportModel, batch: Batch, sentences: Tensor) -> Tensor:
        """What whole images are to be rebuilt as.

        Args:
            net: average encoder, in eval mode; asked for features and text maps only.
            model: embeds the sentences of a text map.
            batch: B studies.
            sentences: (B, M, D) f_R of their reports.

        Returns:
            (B, 1, H, W) an image, of `target_scale` times the side; (B, D, h, w) features; or (B, 1, h, w) a map.
        """
        kind = self.settings.target
        if kind == "features":
            return patch_features(net, batch.images)
        if kind == "text_map":
            patches = net.pool_patches(net.image_encoder.tokens(batch.images))
            queries = model.embed_sentences(sentences)
            with full_precision(patches):
                found = text_map(patches.float(), queries.float(), batch.sentence_mask)
            return found.view(-1, 1, *self.grid)
        plain = self.plain(batch)
        return normalise_patches(plain, self.grid) if self.settings.target_per_patch else plain

    def plain(self, batch: Batch) -> Tensor:
        """(B, 1, H, W) the images to rebuild, or their high frequencies, before any patch is normalised."""
        images = self.images(batch).float()
        with full_precision(images):
            return high_frequencies(images, self.grid) if self.settings.target == "high_frequencies" else images

    def images(self, batch: Batch) -> Tensor:
        """(B, 1, H, W) the radiographs in the size that they are rebuilt in.

        Raises:
            UserError: the batch has none of twice the side.
        """
        if self.settings.target_scale == 1:
            return batch.images
        if batch.fine_images is None:
            raise UserError("objective.target_scale=2: Batch.fine_images is missing, the images of twice the side")
        return batch.fine_images

    def errors(self, rebuilt: Tensor, target: Tensor) -> Tensor:
        """(B, K, H, W) of both -> (B, 1, H, W) absolute error of one channel, 1 - cosine of several."""
        if self.settings.target == "features":
            return 1 - F.cosine_similarity(rebuilt.float(), target.float(), dim=1)[:, None]
        return (rebuilt.float() - target.float()).abs()

    def region(self, hidden: Tensor, like: Tensor) -> Tensor:
        """(B, P) hidden positions -> (B, 1, H, W) places of a target or its error, (B, K, H, W)."""
        return covered_pixels(hidden, self.grid, (like.shape[-2], like.shape[-1]))

    def forward(self, rebuilt: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
        """Mean error over the hidden regions; everywhere if so set, and outside training."""
        error = self.errors(rebuilt, target)
        region = torch.ones_like(error, dtype=torch.bool)
        if self.settings.reconstruct == "hidden" and self.training:
            region = self.region(hidden, error)
        return mean_where(error, region)
