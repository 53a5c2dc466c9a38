"""Model and objective as one module: a batch goes in, losses come out."""

import torch
from torch import Tensor, nn

from cmcgns.data.pairs.batch import Batch
from cmcgns.models.freeze import running_statistics_kept
from cmcgns.models.image_encoder import ImageEncoder
from cmcgns.models.model import ImageReportModel
from cmcgns.models.report_encoder import ReportEncoder
from cmcgns.objectives.cmcgns import CMCGNS, Stage
from cmcgns.objectives.collective import rank, world_size
from cmcgns.objectives.masked_reconstruction import draw_hidden, to_pixels
from cmcgns.settings.config import Recipe


class Task(nn.Module):
    """What is trained.

    Args:
        model: both encoders.
        objective: the losses and their own parameters.
        recipe: the run's settings.
    """

    def __init__(self, model: ImageReportModel, objective: CMCGNS, recipe: Recipe) -> None:
        super().__init__()
        self.model, self.objective = model, objective
        self.settings = recipe.objective
        self.mask_seed = recipe.training.seed
        self.set_stage("alignment")

    def set_stage(self, stage: Stage) -> None:
        """Enter a stage: freeze what it does not train."""
        self.objective.set_stage(stage)
        self.model.patch_projection.requires_grad_(self.objective.uses_patches)
        pooled = self.settings.weight_global > 0
        for module in (self.model.image_pool, self.model.image_projection, self.model.sentence_pool):
            module.requires_grad_(pooled)

    def seed_step(self, seed: int) -> None:
        """Fix the masks of the next training step; the same number on every rank."""
        self.mask_seed = seed

    def after_step(self) -> None:
        """What follows a step of the optimiser."""
        self.objective.after_step()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of a batch; `loss` is what is back-propagated."""
        features = self.model(batch)
        if self.training and self.objective.reconstructs:
            features.hidden = self._draw_hidden(len(batch), batch.images.device)
            if self.settings.mask == "pixels":
                features.hidden_patches = self.painted_patches(batch.images, features.hidden)
        return self.objective(features, batch)  # type: ignore[no-any-return]

    def painted_patches(self, images: Tensor, hidden: Tensor) -> Tensor:
        """Patch tokens (B, P, D) of images whose hidden regions are painted over with mid-gray.

        Args:
            images: (B, 1, H, W).
            hidden: (B, P) true where hidden.
        """
        grid = self.model.image_encoder.grid
        painted = images * ~to_pixels(hidden, grid, (images.shape[-2], images.shape[-1]))
        encoder = self.model.image_encoder
        with running_statistics_kept(encoder):  # evaluation sees whole images only
            return self.model.project_patches(encoder.tokens(painted))

    def _draw_hidden(self, studies: int, device: torch.device) -> Tensor:
        # Drawn for the batch of all ranks, then sliced: two ranks hide what one rank of twice the batch would.
        generator = torch.Generator(device).manual_seed(self.mask_seed)
        grid = self.model.image_encoder.grid
        everyone = studies * world_size()
        hidden = draw_hidden(everyone, grid[0] * grid[1], self.settings.mask_ratio, generator)
        return hidden[rank() * studies : (rank() + 1) * studies]


def build_task(
    recipe: Recipe, vocabulary: int, report_config: dict[str, object] | None = None, load_weights: bool = True
) -> Task:
    """Build model and objective from settings.

    Args:
        recipe: the settings.
        vocabulary: size of the tokenizer.
        report_config: Hugging Face configuration of a saved report encoder.
        load_weights: false when a checkpoint will fill the parameters.
    """
    size = recipe.data.image_size
    image_encoder = ImageEncoder(recipe.image_encoder, size, load_weights)
    report_encoder = ReportEncoder(recipe.report_encoder, vocabulary, recipe.data.max_tokens, report_config)
    model = ImageReportModel(image_encoder, report_encoder, recipe.objective.dim)
    objective = CMCGNS(recipe.objective, image_encoder.grid, size, recipe.training.seed)
    return Task(model, objective, recipe)
