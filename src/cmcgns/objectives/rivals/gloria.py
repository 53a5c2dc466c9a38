"""GLoRIA (Huang et al., "GLoRIA: A Multimodal Global-Local Representation Learning Framework", ICCV 2021)."""

from torch import Tensor

from cmcgns.data.pairs.batch import Batch
from cmcgns.models.model import ImageReportModel
from cmcgns.objectives.collective import gather
from cmcgns.objectives.global_alignment import global_alignment_loss
from cmcgns.objectives.numerics import NOTHING, by_images, full_precision, products, seen_cosines
from cmcgns.objectives.objective import Figures, register
from cmcgns.objectives.report_matching import matching_contrast
from cmcgns.objectives.rivals.rival import Rival, weighted_sum
from cmcgns.settings.config import Settings, Temperature, Weight


class GLoRIAOptions(Settings):
    """Its own settings."""

    attention_temperature: Temperature = 0.25
    """tau_a: divides the cosines of a word with the patches before the softmax over the patches"""
    matching_temperature: Temperature = 0.2
    """tau_s: how much the best words count for more than the others in the matching of a report with an image"""
    local_temperature: Temperature = 0.1
    """tau_l: divides the matchings in the local contrast"""
    global_weight: Weight = 1.0
    """of L_g, the contrast of whole images and reports"""
    local_weight: Weight = 1.0
    """of L_l, the contrast of matchings"""
    double_softmax: bool = False
    """a softmax over the words of the report goes before the one over the patches; false: only that over the patches,
    as in the paper's equation"""


def match(patches: Tensor, words: Tensor, word_mask: Tensor, options: GLoRIAOptions) -> Tensor:
    """Matching of every image with every report.

    With `s_ij = t_i·v_j` of word i and patch j, `a_ij = softmax_j(s_ij / tau_a)` and `c_i = Σ_j a_ij v_j`,
    `Z(b, r) = tau_s log Σ_i exp(cos(c_i, t_i) / tau_s)` over the real words of report r. As in the paper, the sum is
    not divided by their number: n times as many words that match alike add `tau_s log n`.

    No (B, N, L, D) array of contexts is needed (:func:`~cmcgns.objectives.numerics.seen_cosines`).

    Args:
        patches: (B, P, D) unit vectors v.
        words: (N, L, D) unit vectors t.
        word_mask: (N, L) true for real words.
        options: temperatures, and whether a softmax over the words comes first.

    Returns:
        (B, N) Z; far below all others for a report without any word.
    """
    return by_images(lambda part: _match(part, words, word_mask, options), patches, word_mask.numel())


def _match(patches: Tensor, words: Tensor, word_mask: Tensor, options: GLoRIAOptions) -> Tensor:
    cosines = products(patches, words.flatten(0, 1))  # (B, P, N·L)
    scores = cosines
    if options.double_softmax:
        of_report = cosines.unflatten(2, word_mask.shape).masked_fill(~word_mask, NOTHING)
        scores = of_report.softmax(3).flatten(2)
    weights = (scores / options.attention_temperature).softmax(1)
    seen = seen_cosines(weights, patches, weights * cosines)
    logits = seen.unflatten(1, word_mask.shape) / options.matching_temperature
    matching: Tensor = options.matching_temperature * logits.masked_fill(~word_mask, NOTHING).logsumexp(2)
    return matching


@register("gloria")
class GLoRIA(Rival):
    """The paper's global and local contrast, `L = L_g + L_l`.

    L_g is InfoNCE of image and report embeddings in both directions, at a fixed temperature tau_1 that is
    `objective.temperature` (0.1 in the paper). L_l is the same of attention-weighted matchings (:func:`match`,
    :func:`~cmcgns.objectives.report_matching.matching_contrast`).

    The authors' program differs from the paper's equations, which hold here: it takes a softmax over the words before
    the one over the regions (`double_softmax`), lets special tokens take part, and does not multiply the log-sum-exp
    by tau_s. With `double_softmax` the cosines go through the first softmax as they are, over real words only: the
    program has products of vectors of any length there, which tell words apart far more sharply. Of cosines the
    weights come out almost even (of 30 words, one that fits alone weighs about twice as much as any other).

    Departures from the paper: heads and pools are those of all objectives here; patches and words are unit vectors
    before the attention too, so that `s_ij` is a cosine (of two patches one weighs at most e^8 times as much as the
    other); patches are those of the last map instead of an intermediate one, word pieces the last hidden states
    instead of the last four, and they stand for themselves and are not added up to words; the two directions of a
    contrast are averaged, not added; negatives come from all ranks; a report without any word has no part in L_l.
    """

    Options = GLoRIAOptions
    options: GLoRIAOptions
    uses_patches = True
    map_kinds = ("pooled", "patches")

    def forward(self, model: ImageReportModel, batch: Batch, seed: int) -> tuple[Figures, Figures]:  # noqa: ARG002
        """Losses and metrics of a batch."""
        features, options = model(batch), self.options
        with full_precision(features.patches):
            scale = 1 / self.settings.temperature
            whole = global_alignment_loss(features.image_global, features.report_global, scale)
            words, word_mask = gather(features.words.float()), gather(features.word_mask)
            matching = match(features.patches.float(), words, word_mask, options)
            local = matching_contrast(matching, word_mask.any(1), options.local_temperature)
        terms = {"global": whole, "local": local}
        weights = {"global": options.global_weight, "local": options.local_weight}
        return {"loss": weighted_sum(terms, weights), **terms}, {}
