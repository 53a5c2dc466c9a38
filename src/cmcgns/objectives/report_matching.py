"""L_match: whole reports and images, compared by what the reports' sentences see in the images.

Matching and contrast are GLoRIA's (Huang et al., ICCV 2021), of sentences in place of words. L_report compares
one sentence at a time; here the sentences of a report compete and add up before reports are compared.
"""

import torch.nn.functional as F
from torch import Tensor

from cmcgns.objectives.collective import gather, own_numbers, own_rows, sum_over_ranks
from cmcgns.objectives.numerics import NOTHING
from cmcgns.objectives.query_matched import Matched
from cmcgns.settings.config import ObjectiveSettings

_IGNORED = -100  # a row without a loss


def matching_loss(settings: ObjectiveSettings, matched: Matched, reports: int) -> Tensor:
    """L_match as the settings say.

    Args:
        settings: temperatures.
        matched: every sentence over every image.
        reports: R of all ranks.
    """
    sentences = matched.everyone
    matching, has_text = match_reports(
        matched.cosines, sentences.image, sentences.mask, reports, settings.matching_temperature
    )
    return matching_contrast(matching, has_text, settings.matching_tau)


def match_reports(
    cosines: Tensor, report: Tensor, mask: Tensor, reports: int, temperature: float
) -> tuple[Tensor, Tensor]:
    """Matching of every image with every report, `Z(b, r) = τ_s log Σ_n exp(s(n, b)/τ_s)` over the sentences n of r.

    As in GLoRIA the sum is not divided by their number: n times as many that match alike add `τ_s log n`.

    Args:
        cosines: (B, N) s of this rank's images with the sentences of all ranks.
        report: (N,) of every sentence.
        mask: (N,) true for real sentences.
        reports: R of all ranks.
        temperature: τ_s.

    Returns:
        (B, R) Z, and (R,) whether a report has a sentence; without one its Z says nothing.
    """
    # Cosines are at most 1, so nothing overflows; what is 87 τ_s below 1 counts as nothing.
    shares = ((cosines - 1) / temperature).exp() * mask
    sums = shares.new_zeros(len(cosines), reports).index_add(1, report, shares)
    counts = report.new_zeros(reports).index_add(0, report, mask.long())
    return 1 + temperature * sums.clamp(min=1e-37).log(), counts > 0


def matching_contrast(matching: Tensor, has_text: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of `Z/τ` over all reports for an image, and over all images for a report.

    A report without any text has no matching: it is no negative, and its study has no row in either direction.

    Args:
        matching: (B, R) Z of this rank's images with the reports of all ranks.
        has_text: (R,) true for reports with a text.
        temperature: τ.

    Returns:
        Mean over both directions and the studies of all ranks that have a text; 0 where there is none.
    """
    studies = len(matching)
    mine, logits = own_rows(studies), matching / temperature
    chosen = own_numbers(studies, matching.device).masked_fill(~has_text[mine], _IGNORED)
    # Patches never travel: every rank matches all reports with its own images, and the matchings are put together.
    to_images = F.cross_entropy(gather(logits)[:, mine].T, chosen, ignore_index=_IGNORED, reduction="sum")
    reports = logits.masked_fill(~has_text, NOTHING)
    to_reports = F.cross_entropy(reports, chosen, ignore_index=_IGNORED, reduction="sum")
    return sum_over_ranks((to_images + to_reports) / (2 * has_text.sum().clamp(min=1)))
