"""RadZero (Park et al., arXiv 2504.07416, 2025), also with the attention of CARZero (Lai et al., CVPR 2024)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast

from pydantic import model_validator
from torch import Tensor, nn

from cmcgns.common.errors import UserError
from cmcgns.data.pairs.batch import Batch
from cmcgns.models.model import Features, ImageReportModel
from cmcgns.objectives.cross_attention import CrossModalAttention
from cmcgns.objectives.global_alignment import LogitScale, global_alignment_loss
from cmcgns.objectives.numerics import by_images, full_precision, products, seen_cosines
from cmcgns.objectives.objective import Figures, MapKind, Stage, register
from cmcgns.objectives.query_matched import Stated, Statements, query_matched_contrast
from cmcgns.objectives.rivals.rival import Rival, weighted_sum
from cmcgns.settings.config import ObjectiveSettings, Settings, Temperature, Weight

_MAP_TEMPERATURE = 0.07


class RadZeroOptions(Settings):
    """Its own settings."""

    attention: Literal["cosine", "cross"] = "cosine"
    """cosine: a sentence gives its weights by its cosines with the patches; cross: by learned maps, as in CARZero"""
    map_temperature: Temperature = _MAP_TEMPERATURE
    """divides the cosines before the softmax over patches; nothing with attention=cross"""
    tau: Temperature = 0.07
    """temperature of the scores; its start with learn_tau"""
    learn_tau: bool = True
    """false: tau is fixed"""
    duplicates: bool = True
    """sentences of equal text are no negatives of each other's images; false: all of other reports are"""
    global_weight: Weight = 0.0
    """of a contrast of whole images and reports, at objective.temperature, which the paper does not have; with 0
    their embeddings are not trained, and retrieval or zero-shot by them means nothing"""

    @model_validator(mode="after")
    def _reads_map_temperature(self) -> "RadZeroOptions":
        if self.attention == "cross" and self.map_temperature != _MAP_TEMPERATURE:
            raise ValueError("map_temperature is not read with attention=cross: leave the default")
        return self


@dataclass(frozen=True)
class CosineReader:
    """Attention without parameters: `s_p = t_n·v_bp`, `w = softmax_p(s / τ_map)`, `S(n, b) = cos(t_n, Σ_p w_p v_bp)`.

    In all methods patches are (B, P, D) unit vectors v and queries (N, D) unit vectors t.

    Attributes:
        temperature: τ_map.
    """

    temperature: float

    def cosines(self, patches: Tensor, queries: Tensor) -> Tensor:
        """(B, P, N) s: the paper's similarity map, in [-1, 1]."""
        return products(patches, queries)

    def weights(self, patches: Tensor, queries: Tensor) -> Tensor:
        """(B, P, N) w, whose sum over patches is 1."""
        return (self.cosines(patches, queries) / self.temperature).softmax(1)

    def gated_products(self, patches: Tensor, queries: Tensor) -> Tensor:
        """(B, P, N) w·s: what every patch adds to the numerator of :meth:`score`."""
        return self.weights(patches, queries) * self.cosines(patches, queries)

    def score(self, patches: Tensor, queries: Tensor) -> Tensor:
        """(B, N) S."""
        return by_images(lambda part: self._score(part, queries), patches, len(queries))

    def _score(self, patches: Tensor, queries: Tensor) -> Tensor:
        cosines = self.cosines(patches, queries)
        weights = (cosines / self.temperature).softmax(1)
        return seen_cosines(weights, patches, weights * cosines)


def multi_positive_contrast(
    scores: Tensor, rows: Statements, everyone: Statements, stated: Stated, duplicates: bool
) -> Tensor:
    """MP-NCE in both directions, s being S/τ and b the own image of sentence n.

    Sentence -> images: `-log softmax(s(n, ·))_b`. Image -> sentences, of which all of its report are positives:
    `-log [exp s(n, b) / (exp s(n, b) + Σ_m exp s(m, b))]` over the sentences m that are not of b's report, so that
    positives of one image do not push each other away.

    Args:
        scores: (B, N) s of this rank's images with the sentences of all ranks.
        rows: sentences of this rank.
        everyone: of all ranks.
        stated: what this rank's reports say of them.
        duplicates: whether sentences that a whole report holds in equal text are left out of both denominators.

    Returns:
        Mean of both directions over the N real sentences of all ranks.
    """
    left_out = stated.own | stated.text if duplicates else stated.own
    none = scores.new_zeros(())
    return query_matched_contrast(
        scores, rows, everyone, left_out=left_out, towards_images=none, towards_sentences=none
    )


@register("radzero")
class RadZero(Rival):
    """Every sentence of a report is compared with what it sees in every image.

    "RadZero: Similarity-Based Cross-Attention for Explainable Vision-Language Alignment in Chest X-ray with Zero-Shot
    Multi-Task Capability": :class:`CosineReader` gives the scores, :func:`multi_positive_contrast` the term `report`.

    Departures: sentences are those of the report as it was split, instead of minimal ones by a language model; f_R is
    the mean of the words; encoders and projections are those of all objectives here and trained as a whole, instead
    of layers on a fixed image encoder; negatives come from all ranks; sentences of equal text are left out
    (`duplicates`). τ_map is a setting of its own and fixed; in the authors' released settings both softmaxes share
    the learned temperature, and [CLS] is among what a sentence looks at. There a sentence is embedded alone; here its
    words see the report in training, and a prompt is alone. Chosen here: both temperatures start at 0.07, and every
    sentence counts alike, whatever the length of its report. There may be a term `global` of CLIP's form
    (`global_weight`); without one the last epoch counts as the best.

    With `attention: cross` S is the cosine of t_n with `Σ_p w_p V v_bp`, `w = softmax_p(Q t_n·K v_bp / √D)`. That is
    CARZero's cross-attention cut down to one head, one layer and one direction: there words are looked at as well,
    and a linear map of what is seen gives the score. Its loss knows one positive; the one here is RadZero's.
    """

    uses_patches = True
    Options = RadZeroOptions
    options: RadZeroOptions
    attention: CrossModalAttention | None

    def __init__(self, settings: ObjectiveSettings, grid: tuple[int, int], image_size: int, seed: int = 0) -> None:
        super().__init__(settings, grid, image_size, seed)
        self.uses_globals = self.options.global_weight > 0
        self.logit_scale = LogitScale(settings.temperature, learnable=self.uses_globals)
        self.report_scale = LogitScale(self.options.tau, learnable=self.options.learn_tau)
        learned = self.options.attention == "cross"
        self.attention = CrossModalAttention(settings.dim, kind="softmax") if learned else None

    def trainable_parts(self, model: ImageReportModel, stage: Stage) -> Iterable[nn.Module]:
        """Both encoders, and of heads, temperatures and maps those that a loss reads."""
        parts = [part for part in super().trainable_parts(model, stage) if part is not self]
        parts += [self.report_scale] if self.options.learn_tau else []
        parts += [self.logit_scale] if self.uses_globals else []
        if self.attention is not None:
            parts += [self.attention.text_query, self.attention.image_key, self.attention.image_value]
        return parts

    def forward(self, model: ImageReportModel, batch: Batch, seed: int) -> tuple[Figures, Figures]:  # noqa: ARG002
        """Losses and metrics of a batch."""
        features = model(batch)
        with full_precision(features.patches):
            report, metrics = self._report(features, batch)
            terms = {"report": report}
            if self.uses_globals:
                scale = self.logit_scale()
                terms["global"] = global_alignment_loss(features.image_global, features.report_global, scale)
                metrics["temperature"] = 1 / scale.detach()
        loss = weighted_sum(terms, {"global": self.options.global_weight})
        return {"loss": loss} | terms, metrics

    def _report(self, features: Features, batch: Batch) -> tuple[Tensor, Figures]:
        unit = self.queries(features.sentences).flatten(0, 1)
        rows = Statements.of(unit, batch.sentence_mask, batch.sentence_text, batch.sentence_places)
        everyone = rows.of_all_ranks(len(batch))
        stated = Stated.of(rows, everyone, batch.report_sentences, None)
        cosines, scale = self.score(features.patches, everyone.z1), self.report_scale()
        loss = multi_positive_contrast(cosines * scale, rows, everyone, stated, self.options.duplicates)
        return loss, {"tau": 1 / scale.detach()} | stated.mean_scores(cosines, everyone)

    @classmethod
    def check_options(cls, settings: ObjectiveSettings) -> RadZeroOptions:
        """Its own settings; a temperature of whole images and reports is refused where nothing contrasts these."""
        options = cast(RadZeroOptions, super().check_options(settings))
        default = ObjectiveSettings().temperature
        if not options.global_weight and settings.temperature != default:
            raise UserError(
                "objective.temperature is not read with objective.options.global_weight=0: "
                f"leave the default, {default:g}"
            )
        return options

    @property
    def reader(self) -> CosineReader | CrossModalAttention:
        """What lets sentences look at images."""
        return CosineReader(self.options.map_temperature) if self.attention is None else self.attention

    def score(self, patches: Tensor, queries: Tensor) -> Tensor:
        """(B, N) cosines S of every sentence with what it sees in every image, for zero-shot by prompts.

        Args:
            patches: (B, P, D) f_I.
            queries: (N, D) unit sentence vectors.
        """
        return self.reader.score(patches.float(), queries)

    @classmethod
    def starts(cls, settings: ObjectiveSettings) -> dict[str, tuple[str, float]]:
        """Temperatures of whole images and reports, and of sentences."""
        options = RadZeroOptions.model_validate(settings.options)
        return super().starts(settings) | {"report_scale": ("objective.options.tau", options.tau)}

    def lacks_map(self, kind: MapKind) -> str:
        """That nothing has trained the global embeddings, or that learned maps lie between sentences and patches."""
        if kind in ("pooled", "joint") and not self.uses_globals:
            return "the run has objective.options.global_weight 0"
        if kind == "patches" and self.attention is not None:
            return "the run has objective.options.attention cross"
        return ""

    @property
    def local_temperature(self) -> float:
        """Of the scores S."""
        return self.report_scale.temperature
