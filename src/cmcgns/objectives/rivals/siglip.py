"""SigLIP (Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmcgns.data.pairs.batch import Batch
from cmcgns.models.model import ImageReportModel
from cmcgns.objectives.collective import gather, own_numbers, sum_over_ranks, world_size
from cmcgns.objectives.global_alignment import LogitScale
from cmcgns.objectives.numerics import full_precision
from cmcgns.objectives.objective import Figures, register
from cmcgns.objectives.rivals.rival import Rival
from cmcgns.settings.config import ObjectiveSettings, Settings


class SigLIPOptions(Settings):
    """Its own settings."""

    bias: float = -10.0
    """start of b, which is learned; far below 0, so that the many negatives cost little at the start"""


def pair_loss(logits: Tensor, positive: Tensor) -> Tensor:
    """`-1/B Σ_i Σ_j log σ(z_ij l_ij)`, z_ij = 1 for a pair and -1 otherwise.

    Args:
        logits: (B, ranks · B) l of this rank's images and all reports.
        positive: (B, ranks · B) true for pairs, of which a row may have several.

    Returns:
        Sum over all reports of all ranks, mean over all images of all ranks; never negative.
    """
    signed = torch.where(positive, logits, -logits)
    return -sum_over_ranks(F.logsigmoid(signed).sum() / (len(logits) * world_size()))


def sigmoid_loss(image: Tensor, report: Tensor, logit_scale: Tensor, bias: Tensor) -> Tensor:
    """`-1/B Σ_i Σ_j log σ(z_ij (t x_i·y_j + b))`, z_ij = 1 for a pair and -1 otherwise: section 3.2 of the paper.

    Equation and program of the paper differ in the sign of b. With b added to the scaled cosine, as in its program,
    the negatives of a fresh model cost next to nothing at b = -10; subtracted, every one of them costs 10.

    Args:
        image: (B, D) unit vectors of this rank.
        report: (B, D) unit vectors, row i belongs to image i.
        logit_scale: t.
        bias: b.

    Returns:
        Sum over all reports of all ranks, mean over all images of all ranks.
    """
    logits = logit_scale * image.float() @ gather(report.float()).T + bias
    return pair_loss(logits, F.one_hot(own_numbers(len(image), image.device), logits.shape[1]).bool())


@register("siglip")
class SigLIP(Rival):
    """Every image and report of a batch is a pair or none, on its own. The scale starts at 1 / `temperature`.

    Departures: encoders, heads and pools are those of all objectives here, and the scale is at most 100.
    """

    Options = SigLIPOptions
    options: SigLIPOptions

    def __init__(self, settings: ObjectiveSettings, grid: tuple[int, int], image_size: int, seed: int = 0) -> None:
        super().__init__(settings, grid, image_size, seed)
        self.logit_scale = LogitScale(settings.temperature, learnable=True)
        self.bias = nn.Parameter(torch.tensor(self.options.bias))

    @classmethod
    def starts(cls, settings: ObjectiveSettings) -> dict[str, tuple[str, float]]:
        """Temperature and bias."""
        options = SigLIPOptions.model_validate(settings.options)
        return super().starts(settings) | {"bias": ("objective.options.bias", options.bias)}

    def forward(self, model: ImageReportModel, batch: Batch, seed: int) -> tuple[Figures, Figures]:  # noqa: ARG002
        """Losses and metrics of a batch."""
        features, scale = model(batch), self.logit_scale()
        with full_precision(features.image_global):
            loss = sigmoid_loss(features.image_global, features.report_global, scale, self.bias)
        metrics = {"temperature": 1 / scale.detach(), "bias": self.bias.detach().clone()}
        return {"loss": loss, "global": loss}, metrics
