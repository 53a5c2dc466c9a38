"""After FaNe (Zhang et al., "Towards Fine-Grained Cross-Modal Contrast with False-Negative Reduction", AAAI 2026)."""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from cmcgns.data.pairs.batch import Batch
from cmcgns.models.model import Features, ImageReportModel
from cmcgns.objectives.collective import gather, mean_where, sum_over_ranks, total, world_size
from cmcgns.objectives.global_alignment import LogitScale
from cmcgns.objectives.numerics import full_precision
from cmcgns.objectives.objective import Figures, register
from cmcgns.objectives.rivals.rival import Rival, pairs_of, weighted_sum, within_study_contrast
from cmcgns.objectives.rivals.siglip import pair_loss
from cmcgns.settings.config import ObjectiveSettings, Settings

_CENTRE_RATE = 0.05
_TINY = 1e-6  # of divisors and of shares of attention: a study alone, patches that are all alike


class FaNeOptions(Settings):
    """Its own settings."""

    global_weight: Annotated[float, Field(ge=0)] = 1.0
    """of the images and reports"""
    report_weight: Annotated[float, Field(ge=0)] = 1.0
    """of the sentences of a report; lambda_1"""
    negative_weight: Annotated[float, Field(ge=0)] = 1.0
    """of the images among themselves, and the reports; lambda_2"""
    similar: Annotated[float, Field(gt=0, le=1)] = 0.5
    """kappa: a report that shares more sentences with that of an image is its pair too; 1: one of equal text alone"""
    centred: bool = True
    """similarity counts from that which reports have with their mean, on to 1; false: it is the cosine"""
    centre_rate: Annotated[float, Field(gt=0, le=1)] = _CENTRE_RATE
    """share of the newest batch in the running mean of that similarity; nothing with centred=false"""
    bias: float = -10.0
    """start of b, which is learned"""
    sentence_temperature: Annotated[float, Field(gt=0)] = 0.07
    """tau_2, of the sentences"""
    negative_temperature: Annotated[float, Field(gt=0)] = 0.07
    """tau_3, of the images among themselves, and of what they weigh"""

    @model_validator(mode="after")
    def _reads_centre_rate(self) -> "FaNeOptions":
        if not self.centred and self.centre_rate != _CENTRE_RATE:
            raise ValueError("centre_rate is not read with centred=false: leave the default")
        return self


def hard_negatives(own: Tensor, everyone: Tensor, positive: Tensor, temperature: float) -> Tensor:
    """(B,) `Σ_j softmax_j(l_ij / τ) l_ij` of every row i, `l_ij = cos(i, j) / τ`, j not its pair; 0 where all are.

    The nearest one that says something else counts most, and is pushed away.

    Args:
        own: (B, D) unit vectors of this rank, all of images or all of reports.
        everyone: (N, D) the same of all ranks.
        positive: (B, N) true for pairs, i itself among them.
        temperature: τ.
    """
    logits = own @ everyone.T / temperature
    # A finite floor: all may be pairs.
    weights = (logits / temperature).masked_fill(positive, torch.finfo(logits.dtype).min).softmax(1)
    return (weights * logits).masked_fill(positive, 0).sum(1)


def shared_sentences(own: Tensor, others: Tensor) -> Tensor:
    """(B, N) cosines of how often reports say each sentence: 1 for the same sentences, 0 for none in common.

    Args:
        own: (B, R) numbers of sentences, equal ones for equal text; 0 for padding.
        others: (N, R) of the reports to compare them with.
    """
    real = others > 0
    # A sentence of every report at a time: all at once they would take R times the memory.
    common = torch.stack([((each[:, None, None] == others) & real).sum(2) for each in own.unbind(1)]).sum(0)
    squares = [
        ((each[:, :, None] == each[:, None]) & (each > 0)[:, None]).sum((1, 2)).float() for each in (own, others)
    ]
    return common / (squares[0][:, None] * squares[1]).sqrt().clamp(min=1)


def centre_of(similarity: Tensor, others: Tensor) -> Tensor:
    """The mean cosine of the reports of all ranks with the direction of their mean; empty ones do not count.

    It is the length of the mean of their unit vectors, whose square is the mean similarity of any two.

    Args:
        similarity: (B, N) of this rank's reports with all.
        others: (N, R) numbers of the sentences of all.
    """
    return total(similarity.sum()).sqrt() / (others > 0).any(1).sum().clamp(min=1)


def sparse_attention(sentences: Tensor, patches: Tensor) -> Tensor:
    """(B, M, P) weights of the P patches that a sentence looks at; those of a sentence sum to 1.

    Similarities are stretched to [0, 1] within the image, those below 1/P are set to 0, and the rest is divided by
    its sum, as in Bica et al., "Improving fine-grained understanding in image-text pre-training", ICML 2024.

    Args:
        sentences: (B, M, D) unit vectors.
        patches: (B, P, D) unit vectors of the same studies.
    """
    similarity = sentences @ patches.transpose(1, 2)
    above = similarity - similarity.amin(2, keepdim=True)
    kept = above >= above.amax(2, keepdim=True) / above.shape[2]
    shares = (above + _TINY) * kept  # where all are alike, as for padding, all patches share equally
    return shares / shares.sum(2, keepdim=True)


@register("fane")
class FaNe(Rival):
    """Images with all reports that say what theirs says, and sentences with the patches they look at: FaNe-like.

    The paper's text was not at hand: the equations are known from the abstract, a public summary and what the
    authors' program computes. They have L_mp + λ1 L_tc + λ2 L_hn + λ3 L_spa, every λ 1, κ = 0.95, τ1 = 0.1,
    τ2 = τ3 = 0.07.

    - `global` is L_mp, `-1/N Σ_i Σ_j log σ(h_ij (t x_i·y_j + b))`. h_ij = 1 where the similarity of reports i and j,
      `(S - o) / (1 - o)`, exceeds κ, else -1; S is a cosine, o a running mean of the reports' with their mean.
    - `report` is L_tc: sentences against what they see in their own image, negatives being of the same report; mean
      over the sentences of a report, then over reports.
    - `negatives` is L_hn: :func:`hard_negatives` of images among images and of reports among reports, mean of both.

    Departures, beside heads, pools and negatives of all ranks, which all objectives here share:

    - S is of the sentences that reports share (:func:`shared_sentences`); the paper has the embeddings of a second,
      frozen BioClinicalBERT. Embeddings in training will not do: what is similar is made more so, until an image has
      several pairs that say other things. Equal reports are always pairs.
    - κ is 0.5, on the scale of that S: two reports that share two thirds of their sentences. No two of 800 synthetic
      reports exceed the paper's 0.95, 275 of 319,600 pairs exceed 0.5.
    - t is learned, from 1 / `objective.temperature`, in place of a fixed and a learned factor. b is added, as in
      `siglip`; equation and program subtract it.
    - A threshold makes attention sparse (:func:`sparse_attention`). There learned queries and keys give attention by
      a sigmoid, an MLP over each pair of them a mask, and L_spa is the mask's L1 norm.
    - Sentences of equal text in a report do not repel each other.

    Attributes:
        centre: (2,) running sum of the similarities o, and of their weights.
    """

    Options = FaNeOptions
    options: FaNeOptions
    uses_patches = True
    map_kinds = ("pooled", "patches")
    centre: Tensor

    def __init__(self, settings: ObjectiveSettings, grid: tuple[int, int], image_size: int, seed: int = 0) -> None:
        super().__init__(settings, grid, image_size, seed)
        self.logit_scale = LogitScale(settings.temperature, learnable=True)
        self.bias = nn.Parameter(torch.tensor(self.options.bias))
        self.register_buffer("centre", torch.zeros(2))

    @classmethod
    def starts(cls, settings: ObjectiveSettings) -> dict[str, tuple[str, float]]:
        """Temperature and bias."""
        options = FaNeOptions.model_validate(settings.options)
        return super().starts(settings) | {"bias": ("objective.options.bias", options.bias)}

    def forward(self, model: ImageReportModel, batch: Batch, seed: int) -> tuple[Figures, Figures]:  # noqa: ARG002
        """Losses and metrics of a batch."""
        features, scale, options = model(batch), self.logit_scale(), self.options
        with full_precision(features.image_global):
            image, report = features.image_global.float(), features.report_global.float()
            positive = self.find_pairs(batch)
            terms = {
                "global": pair_loss(scale * image @ gather(report).T + self.bias, positive),
                "report": self._report(features, batch),
                "negatives": self._negatives(image, report, positive),
            }
        weights = (options.global_weight, options.report_weight, options.negative_weight)
        loss = weighted_sum(terms, dict(zip(terms, weights, strict=True)))
        pairs_per_image = total(positive.sum()) / (len(positive) * world_size())
        metrics = {"temperature": 1 / scale.detach(), "bias": self.bias.detach().clone(), "pairs": pairs_per_image}
        return {"loss": loss, **terms}, metrics

    def _negatives(self, image: Tensor, report: Tensor, positive: Tensor) -> Tensor:
        """Mean over the images and reports of all ranks."""
        tau = self.options.negative_temperature
        each = [hard_negatives(own, gather(own), positive, tau) for own in (image, report)]
        return sum_over_ranks(torch.stack(each).mean() / world_size())

    def _report(self, features: Features, batch: Batch) -> Tensor:
        """Mean over the reports of all ranks that have sentences, of the mean of these; others have another text."""
        sentences, patches = F.normalize(features.sentences.float(), dim=-1), features.patches.float()
        mask, text = batch.sentence_mask, batch.sentence_text
        seen, others = sparse_attention(sentences, patches) @ patches, text[:, :, None] != text[:, None]
        each = within_study_contrast(sentences, seen, others & pairs_of(mask), self.options.sentence_temperature)
        counts = mask.sum(1)
        return mean_where((each * mask).sum(1) / counts.clamp(min=1), counts > 0)

    @torch.no_grad()
    def find_pairs(self, batch: Batch) -> Tensor:
        """(B, ranks · B) true for reports of the same text, the own one among them, and for similar ones."""
        everyone = gather(batch.report_sentences)
        similarity = shared_sentences(batch.report_sentences, everyone)
        if self.options.centred:
            if self.training:
                newest = torch.stack([centre_of(similarity, everyone), torch.ones_like(self.centre[1])])
                self.centre.lerp_(newest, self.options.centre_rate)
            centre = self.centre[0] / self.centre[1].clamp(min=_TINY)  # 0 before the first step
            similarity = (similarity - centre) / (1 - centre + _TINY)
        same = batch.report_text[:, None] == gather(batch.report_text)
        return same | (similarity.clamp(max=1) > self.options.similar)
