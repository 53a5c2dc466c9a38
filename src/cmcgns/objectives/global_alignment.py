"""L_global: symmetric InfoNCE over image and report embeddings."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmcgns.objectives.collective import gather, own_numbers, sum_over_ranks, world_size
from cmcgns.settings.config import MAX_LOGIT_SCALE

# A little less than log(100): rounded up, the bound would lie where the clamp of the value has no gradient.
_MAX_LOGARITHM = math.log(MAX_LOGIT_SCALE) - 1e-5


class LogitScale(nn.Module):
    """The inverse of a temperature; learned on a logarithmic axis and clamped, or fixed.

    Without the clamp the scale can grow until half precision overflows (van den Oord et al. use a constant,
    CLIP clamps at 100). The parameter is held below the bound as well (`clamp`), because the clamp of a value has no
    gradient above it: a parameter that went there once would stay for ever.
    """

    def __init__(self, temperature: float, learnable: bool) -> None:
        super().__init__()
        self.learnable = learnable
        start = min(-math.log(temperature), _MAX_LOGARITHM)
        self.logarithm = nn.Parameter(torch.tensor(start), requires_grad=learnable)

    def forward(self) -> Tensor:
        """The multiplier of the cosines, at most 100."""
        return self.logarithm.float().exp().clamp(max=MAX_LOGIT_SCALE)

    @property
    def temperature(self) -> float:
        """Its inverse, as it is now."""
        return float(1 / self().detach())

    @torch.no_grad()
    def clamp(self) -> None:
        """Bring the parameter back below the bound; after every step of the optimiser."""
        self.logarithm.clamp_(max=_MAX_LOGARITHM)


def global_alignment_loss(
    image: Tensor,
    report: Tensor,
    logit_scale: Tensor | float,
    log_weights: Tensor | None = None,
    image_weight: float = 0.5,
) -> Tensor:
    """Symmetric InfoNCE between B images and their B reports; negatives come from all ranks.

    With weights w_ij of study j as a negative of study i, `-log exp(s_ii) / (exp(s_ii) + Σ_{j≠i} w_ij exp(s_ij))` in
    both directions, s being scaled cosines.

    Args:
        image: (B, D) image embeddings, any length.
        report: (B, D) report embeddings, row i belongs to image i.
        logit_scale: multiplier of the cosines, a scalar.
        log_weights: (B, ranks · B) log w_ij, 0 at the own study, w symmetric; None for equal ones.
        image_weight: share of image -> report; the other direction has the rest.

    Returns:
        The weighted mean over both directions, and over all studies of all ranks. 0 for a single study.
    """
    image, report = F.normalize(image.float(), dim=-1), F.normalize(report.float(), dim=-1)
    own = own_numbers(len(image), image.device)
    reports, images = logit_scale * image @ gather(report).T, logit_scale * report @ gather(image).T
    if log_weights is not None:
        reports, images = reports + log_weights, images + log_weights
    to_report, to_image = (F.cross_entropy(logits, own, reduction="sum") for logits in (reports, images))
    both = image_weight * to_report + (1 - image_weight) * to_image
    return sum_over_ranks(both / (len(image) * world_size()))
