"""PRIOR (Cheng et al., "Prototype Representation Joint Learning from Medical Images and Reports", ICCV 2023)."""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from cmcgns.data.pairs.batch import Batch
from cmcgns.models.model import Features, ImageReportModel, start_plain
from cmcgns.objectives.centroids import move_centroids, worst_fit
from cmcgns.objectives.collective import mean_where, total
from cmcgns.objectives.cross_attention import CrossModalAttention
from cmcgns.objectives.global_alignment import LogitScale, global_alignment_loss
from cmcgns.objectives.local_image import Predictor, local_image_loss
from cmcgns.objectives.masked_reconstruction import MaskedReconstruction
from cmcgns.objectives.numerics import full_precision
from cmcgns.objectives.objective import Figures, register
from cmcgns.objectives.rivals.rival import AttentiveRival, pairs_of, weighted_sum, within_study_contrast
from cmcgns.settings.config import ObjectiveSettings, Settings, Temperature, Weight


class PRIOROptions(Settings):
    """Its own settings."""

    weight_global: Weight = 1.0
    """of the contrast of whole images and reports"""
    weight_image: Weight = 1.0
    """of the agreement of patches with what they gather from the report"""
    weight_report: Weight = 1.0
    """of the contrast of sentences with what they see"""
    weight_reconstruction: Weight = 1.0
    """of the masked image"""
    weight_prototypes: Weight = 1.0
    """of the prediction of sentence prototypes"""
    sentence_temperature: Temperature = 0.1
    """tau of the contrast of sentences; fixed"""
    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """share of the patches that is hidden from the reconstruction"""
    prototypes: Annotated[int, Field(ge=2, le=2**16)] = 512
    """K: sentence prototypes in memory"""
    prototype_momentum: Annotated[float, Field(ge=0, le=1)] = 0.99
    """share of itself that a prototype keeps in a step that has sentences for it"""


def balanced_presence_loss(logits: Tensor, present: Tensor) -> Tensor:
    """Binary cross-entropy in which the prototypes that a report has weigh as much as all that it lacks.

    Args:
        logits: (B, K).
        present: (B, K) true where the report has a sentence of the prototype.

    Returns:
        Mean over the studies of all ranks whose report has a sentence: nothing is known of the others.
    """

    def mean_over(chosen: Tensor, cost: Tensor) -> Tensor:
        return (cost * chosen).sum(1) / chosen.sum(1).clamp(min=1)

    each = (mean_over(present, F.softplus(-logits)) + mean_over(~present, F.softplus(logits))) / 2
    known = present.any(1)
    return mean_where(each, known)


class PresenceHead(nn.Module):
    """Every prototype looks at an image once, with several heads; its cosine with what it sees becomes a logit.

    Args:
        dim: D, divisible by `heads`.
        heads: attention heads.
    """

    def __init__(self, dim: int, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.value, self.output = (nn.Linear(dim, dim) for _ in range(3))
        self.key = nn.Linear(dim, dim, bias=False)  # softmax would cancel one: the same in all scores of a query
        for layer in (self.query, self.key, self.value, self.output):
            start_plain(layer)
        self.logit = nn.Linear(1, 1)
        nn.init.constant_(self.logit.weight, 10.0)  # cosines move a sigmoid only when scaled, as in every contrast
        nn.init.zeros_(self.logit.bias)

    def forward(self, prototypes: Tensor, tokens: Tensor) -> Tensor:
        """(K, D) unit prototypes and (B, T, D) tokens of images -> (B, K) logits."""
        query = self.query(prototypes).expand(len(tokens), -1, -1)
        parts = (each.unflatten(2, (self.heads, -1)) for each in (query, self.key(tokens), self.value(tokens)))
        attended = F.scaled_dot_product_attention(*(each.transpose(1, 2) for each in parts))
        seen = self.output(attended.transpose(1, 2).flatten(2))
        with full_precision(seen):
            cosines = torch.einsum("bkd,kd->bk", F.normalize(seen.float(), dim=-1), prototypes)
            return self.logit(cosines[:, :, None])[:, :, 0]  # type: ignore[no-any-return]


@register("prior")
class PRIOR(AttentiveRival):
    """Global contrast, local alignment (LAM), masked image (CCR) and sentence prototypes (SPG), summed.

    - `global`: symmetric InfoNCE of whole images and reports; its scale starts at 1 / `objective.temperature`.
    - `image`: SimSiam between a patch and what it gathers from the report through sigmoid gates, targets fixed.
    - `report`: contrast of sentences with what they see through such gates, among the sentences of one report.
    - `reconstruction`: hidden patches are rebuilt as pixels, with the report's help (mean absolute error).
    - `prototypes`: which of K sentence prototypes the report has, told from the image.

    Departures. The paper predicts prototypes by a DETR-like decoder and matches them to the sentences by the
    Hungarian algorithm, on the CPU: the host waits for the device in every step, and loops over the studies. Which
    prototypes a report has is a set, so here each is asked about on its own: one layer of attention, in which
    prototypes query the patches and the image embedding, and a binary cross-entropy in which those present and those
    absent weigh alike. How often one occurs in a report is lost. In the authors' program the prototypes also stand in
    for the sentences in all alignments of its later stages, learn by gradients (Gumbel softmax), and weigh 10 times
    as much, and the predicted report is aligned with the true one; here none of that: they are running means. The
    whole report is hidden from that head: a part of it, or patches that have gathered from it, would give the answer
    away. Prototypes start as random unit vectors, by the seed of the run, keep length 1, and are compared before a
    step moves them. Sentences lie so close together at first that a few of these would be nearest to all of them for
    good: so in every step the next one that no sentence has chosen yet takes the place of the sentence of the batch
    that fits its own prototype least. Patches are hidden at the level of f_I, and ask the report with the mask token
    and their place. The temperature of `global` is learned, and its negatives come from all ranks. The encoders'
    heads are those of all objectives here; a sentence is the mean of its words, and all sentences count alike in
    `report` (there: all reports). `report`'s temperature is fixed; there it is learned, and its released settings
    start both at 0.01. All terms are trained from the first step on, in both stages. In evaluation nothing is hidden.
    """

    Options = PRIOROptions
    options: PRIOROptions
    uses_patches = True
    map_kinds = ("pooled", "attention")
    reads = AttentiveRival.reads | {"decoder_width"}
    memory: Tensor
    chosen: Tensor

    def __init__(self, settings: ObjectiveSettings, grid: tuple[int, int], image_size: int, seed: int = 0) -> None:
        super().__init__(settings, grid, image_size, seed)
        dim, options = settings.dim, self.options
        rebuilding = ObjectiveSettings(
            dim=dim,
            reconstruction="cross_modal",
            mask_ratio=options.mask_ratio,
            decoder_width=settings.decoder_width,
        )
        self.logit_scale = LogitScale(settings.temperature, learnable=True)
        self.attention, self.predictor = CrossModalAttention(dim), Predictor(dim)
        self.reconstruction = MaskedReconstruction(rebuilding, grid, image_size, "options.")
        self.head = PresenceHead(dim)
        start = torch.randn(options.prototypes, dim, generator=torch.Generator().manual_seed(seed), device="cpu")
        self.register_buffer("memory", F.normalize(start, dim=-1))
        self.register_buffer("chosen", torch.zeros(options.prototypes, dtype=torch.bool))

    def forward(self, model: ImageReportModel, batch: Batch, seed: int) -> tuple[Figures, Figures]:
        """Losses and metrics of a batch; in training also move the prototypes."""
        features, scale, mask = model(batch), self.logit_scale(), batch.sentence_mask
        patches, sentences, memory = features.patches, features.sentences, self.memory.clone()  # as before the step
        gathered, _ = self.attention.text_to_image(patches, sentences, mask)
        seen, _ = self.attention.image_to_text(patches, sentences, mask)
        presence = self.head(memory, torch.cat([features.image_global[:, None], patches], dim=1))
        terms = {"image": local_image_loss(patches, gathered, self.predictor)}
        terms["reconstruction"] = self._reconstruction(features, batch, seed)
        with full_precision(patches):
            present, in_use = self._present(sentences.float(), mask, memory)
            terms["global"] = global_alignment_loss(features.image_global, features.report_global, scale)
            each = within_study_contrast(sentences, seen, pairs_of(mask), self.options.sentence_temperature)
            terms["report"] = mean_where(each, mask)
            terms["prototypes"] = balanced_presence_loss(presence, present)
        loss = weighted_sum(terms, {name: getattr(self.options, f"weight_{name}") for name in terms})
        return {"loss": loss} | terms, {"temperature": 1 / scale.detach(), "prototypes_in_use": in_use}

    def _reconstruction(self, features: Features, batch: Batch, seed: int) -> Tensor:
        hidden = self.reconstruction.draw(len(batch), seed, batch.images.device)
        rebuilt = self.reconstruction.reconstruct(
            features.patches, hidden, features.sentences, batch.sentence_mask, self.attention
        )
        return self.reconstruction(rebuilt, self.reconstruction.plain(batch), hidden)  # type: ignore[no-any-return]

    @torch.no_grad()
    def _present(self, sentences: Tensor, sentence_mask: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K) which prototypes a report has, and how many of them the batch; in training they move afterwards."""
        vectors = F.normalize(sentences, dim=-1)
        fit, nearest = (vectors @ memory.T).max(-1)
        members = F.one_hot(nearest, len(memory)) * sentence_mask[:, :, None].float()
        counts = total(members.sum((0, 1)))
        if self.training:
            sums = total(members.flatten(0, 1).T @ vectors.flatten(0, 1))
            rate = 1 - self.options.prototype_momentum
            self.memory.copy_(move_centroids(memory, sums, counts, rate, "mean"))
            self.chosen |= counts > 0
            self._place_next(fit.masked_fill(~sentence_mask, torch.inf).flatten(), vectors.flatten(0, 1))
        return members.any(1), (counts > 0).sum().float()

    def _place_next(self, fit: Tensor, vectors: Tensor) -> None:
        """Put the first prototype that no sentence has chosen yet where the sentence is that fits its own least."""
        poorest, sentence = worst_fit(fit, vectors)
        placed = F.one_hot(self.chosen.int().argmin(), len(self.memory)).bool() & ~self.chosen & poorest.isfinite()
        self.memory.copy_(torch.where(placed[:, None], sentence, self.memory))
        self.chosen |= placed
