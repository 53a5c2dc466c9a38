"""A second objective in one file: the contrast of images and reports alone, as in CLIP."""

from torch import nn

from cmcgns.data.pairs.batch import Batch
from cmcgns.models.model import ImageReportModel
from cmcgns.objectives.global_alignment import LogitScale, global_alignment_loss
from cmcgns.objectives.objective import Figures, Objective, Stage, register
from cmcgns.settings.config import ObjectiveSettings, Settings


class ContrastOptions(Settings):
    """Its own settings."""

    learn_temperature: bool = True


@register("global-contrast")
class GlobalContrast(Objective):
    """Symmetric InfoNCE; both stages do the same."""

    Options = ContrastOptions
    options: ContrastOptions

    def __init__(self, settings: ObjectiveSettings, grid: tuple[int, int], image_size: int, seed: int = 0) -> None:
        super().__init__(settings, grid, image_size, seed)
        self.logit_scale = LogitScale(settings.temperature, self.options.learn_temperature)

    def forward(self, model: ImageReportModel, batch: Batch, seed: int) -> tuple[Figures, Figures]:
        features, scale = model(batch), self.logit_scale()
        loss = global_alignment_loss(features.image_global, features.report_global, scale)
        return {"loss": loss, "global": loss}, {"temperature": 1 / scale.detach()}

    def trainable_parts(self, model: ImageReportModel, stage: Stage) -> list[nn.Module]:
        heads = [model.image_pool, model.image_projection, model.token_projection, model.sentence_pool]
        heads += [self.logit_scale] if self.options.learn_temperature else []
        return [model.image_encoder, model.report_encoder, *heads]

    def clamp_logit_scale(self) -> None:
        self.logit_scale.clamp()
