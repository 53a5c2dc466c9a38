"""MGCA (Wang et al., NeurIPS 2022).

"Multi-Granularity Cross-modal Alignment for Generalized Medical Visual Representation Learning",
https://arxiv.org/abs/2210.06044.
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from cmcgns.data.pairs.batch import Batch
from cmcgns.models.model import Features, ImageReportModel, start_plain
from cmcgns.objectives.collective import gather, own_rows, sum_over_ranks, total, world_size
from cmcgns.objectives.cross_attention import CrossModalAttention
from cmcgns.objectives.global_alignment import global_alignment_loss
from cmcgns.objectives.numerics import full_precision
from cmcgns.objectives.objective import Figures, register
from cmcgns.objectives.rivals.rival import AttentiveRival, pairs_of, weighted_sum, within_study_contrast
from cmcgns.settings.config import ObjectiveSettings, Settings, Temperature, Weight


class MGCAOptions(Settings):
    """Its own settings; the instance-wise term has weight 1 and `objective.temperature`."""

    token_weight: Weight = 0.7
    """weight of the token-wise alignment"""
    prototype_weight: Weight = 0.5
    """weight of the alignment by prototypes"""
    token_temperature: Temperature = 0.07
    """tau_2: of the cosines of tokens and what they saw"""
    prototype_temperature: Temperature = 0.2
    """tau_3: of the cosines of studies and prototypes"""
    prototypes: Annotated[int, Field(ge=2, le=100_000)] = 500
    """K"""
    sinkhorn_epsilon: Annotated[float, Field(ge=1e-3, le=100)] = 0.05
    """smoothness of the codes: the larger, the more prototypes share a study"""
    sinkhorn_steps: Annotated[int, Field(ge=1, le=100)] = 3
    """rounds of Sinkhorn-Knopp; more of them share the studies out among the prototypes more equally"""


def token_contrast(tokens: Tensor, seen: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """`Σ_j w_j l_j` of every study, w_j equal; l_j is that of :func:`within_study_contrast`.

    The other tokens of the same study are the only negatives.

    Args:
        tokens: (B, T, D) x, any length.
        seen: (B, T, D) o, what every token gathered from the other modality, any length.
        mask: (B, T) true for real tokens.
        temperature: τ.

    Returns:
        (B,) means over the real tokens; 0 for a study without any.
    """
    each = within_study_contrast(tokens, seen, pairs_of(mask), temperature)
    return (each * mask / mask.sum(1, keepdim=True).clamp(min=1)).sum(1)


@torch.no_grad()
def codes_of(scores: Tensor, epsilon: float, steps: int) -> Tensor:
    """Soft assignments of studies to prototypes by Sinkhorn-Knopp.

    In turn all prototypes get equal shares of the batch, and every study a sum of 1. On logarithms, where log-sum-exp
    subtracts the maximum: nothing overflows, and no share that was rounded to 0 is divided by.

    Args:
        scores: (N, K) cosines of the studies of all ranks with the prototypes.
        epsilon: that divides them.
        steps: rounds.

    Returns:
        (N, K) codes without gradient; each row sums to 1, each column to about N / K.
    """
    logarithms = scores.float() / epsilon
    for _ in range(steps):
        logarithms = logarithms.log_softmax(0).log_softmax(1)
    return logarithms.exp()


def swapped_prediction(image: Tensor, report: Tensor, prototypes: Tensor, options: MGCAOptions) -> Tensor:
    """`-1/2B Σ_i [q(y_i)·log softmax(x_i·C/τ) + q(x_i)·log softmax(y_i·C/τ)]`, q the codes of reports and of images.

    Args:
        image: (B, D) unit vectors x of this rank.
        report: (B, D) unit vectors y; row i belongs to image i.
        prototypes: (K, D) C, any length.
        options: τ, and how codes are made.

    Returns:
        Mean over both directions and the studies of all ranks.
    """
    directions = F.normalize(prototypes.float(), dim=-1).T
    images, reports = image.float() @ directions, report.float() @ directions

    def cost(scores: Tensor, others: Tensor) -> Tensor:
        codes = codes_of(gather(others.detach()), options.sinkhorn_epsilon, options.sinkhorn_steps)
        logits = scores / options.prototype_temperature
        return F.cross_entropy(logits, codes[own_rows(len(scores))], reduction="sum")

    both = cost(images, reports) + cost(reports, images)
    return sum_over_ranks(both / (2 * len(image) * world_size()))


@register("mgca")
class MGCA(AttentiveRival):
    """`L = L_ITA + 0.7 L_CTA + 0.5 L_CPA`: whole images and reports, tokens, prototypes.

    `global` is L_ITA, symmetric InfoNCE at `objective.temperature` (τ_1, 0.1; τ_1 0.07 and τ_2 0.1, the other way
    round, are found as settings of it too, and were a trial of docs/rivals.md). `tokens` is L_CTA, half the sum of
    its two directions: a word piece x_j sees `o_j = O Σ_k softmax_k((Q x_j)·(K v_k)/√D) V v_k` of the patches v_k of
    its own image and finds it among what the other word pieces of its report see, and it finds x_j; so does a patch
    in its report. `prototypes` is L_CPA: image and report predict each other's soft assignment to K learned
    directions.

    Departures: heads are those of all objectives here, of `objective.dim` dimensions (128 in the paper). Word pieces
    stand for words. Tokens of a study weigh the same; in the paper a token weighs what [CLS] attends to it in the
    encoder's last layer, which the shared encoders do not tell. Reports without any word piece do not count in L_CTA.
    All three terms are means of their directions; in the authors' program L_ITA and L_CTA are sums of them, beside
    which prototypes weigh half as much, and its default attention has no Q, K, V and O.
    L_ITA's negatives and the studies that share out the prototypes are those of all ranks. Prototypes are normalised
    where they are used, with the gradient of that, and learn from the first step.
    """

    Options = MGCAOptions
    options: MGCAOptions
    uses_patches = True
    map_kinds = ("pooled", "attention")

    def __init__(self, settings: ObjectiveSettings, grid: tuple[int, int], image_size: int, seed: int = 0) -> None:
        super().__init__(settings, grid, image_size, seed)
        self.attention = CrossModalAttention(settings.dim, "softmax")
        self.word_output, self.patch_output = (nn.Linear(settings.dim, settings.dim) for _ in range(2))
        self.prototypes = nn.Linear(settings.dim, self.options.prototypes, bias=False)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                start_plain(layer)

    def forward(self, model: ImageReportModel, batch: Batch, seed: int) -> tuple[Figures, Figures]:  # noqa: ARG002
        """Losses and metrics of a batch."""
        features = model(batch)
        image, report = features.image_global, features.report_global
        tokens = self.align_tokens(features)
        with full_precision(image):
            terms = {
                "global": global_alignment_loss(image, report, 1 / self.settings.temperature),
                "tokens": tokens,
                "prototypes": swapped_prediction(image, report, self.prototypes.weight, self.options),
            }
            weights = {"tokens": self.options.token_weight, "prototypes": self.options.prototype_weight}
            return {"loss": weighted_sum(terms, weights)} | terms, {}

    def align_tokens(self, features: Features) -> Tensor:
        """L_CTA: mean over both directions and over the studies of all ranks that have a word piece."""
        words, patches, mask = features.words, features.patches, features.word_mask
        words_saw = self.word_output(self.attention.image_to_text(patches, words, mask)[0])
        patches_saw = self.patch_output(self.attention.text_to_image(patches, words, mask)[0])
        present, temperature = mask.any(1), self.options.token_temperature
        with full_precision(words):
            both = token_contrast(words, words_saw, mask, temperature) + token_contrast(
                patches, patches_saw, present[:, None].expand(patches.shape[:2]), temperature
            )
            return sum_over_ranks(both.sum() / (2 * total(present.sum()).clamp(min=1)))
