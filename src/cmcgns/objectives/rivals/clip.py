"""CLIP (Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021)."""

from cmcgns.data.pairs.batch import Batch
from cmcgns.models.model import ImageReportModel
from cmcgns.objectives.global_alignment import LogitScale, global_alignment_loss
from cmcgns.objectives.numerics import full_precision
from cmcgns.objectives.objective import Figures, register
from cmcgns.objectives.rivals.rival import Rival
from cmcgns.settings.config import ObjectiveSettings


@register("clip")
class CLIP(Rival):
    """The symmetric cross-entropy of the paper's figure 3, with a learned scale of at most 100.

    `L = -1/2B Σ_i [log softmax_j(s x_i·y_j)_i + log softmax_j(s x_j·y_i)_i]`: the term L_global of CM-CGNS alone.
    The scale starts at 1 / `objective.temperature` (0.07 in the paper). Negatives come from all ranks.

    Departures: encoders, heads and pools are those of all objectives here.
    """

    def __init__(self, settings: ObjectiveSettings, grid: tuple[int, int], image_size: int, seed: int = 0) -> None:
        super().__init__(settings, grid, image_size, seed)
        self.logit_scale = LogitScale(settings.temperature, learnable=True)

    def forward(self, model: ImageReportModel, batch: Batch, seed: int) -> tuple[Figures, Figures]:  # noqa: ARG002
        """Losses and metrics of a batch."""
        features, scale = model(batch), self.logit_scale()
        with full_precision(features.image_global):
            loss = global_alignment_loss(features.image_global, features.report_global, scale)
        return {"loss": loss, "global": loss}, {"temperature": 1 / scale.detach()}
