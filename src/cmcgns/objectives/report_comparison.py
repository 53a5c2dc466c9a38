"""What a report is worth to the reconstruction of hidden regions: a study's own one, another study's, and none."""

import torch
from torch import Tensor

from cmcgns.data.pairs.batch import Batch
from cmcgns.models.model import Features, ImageReportModel
from cmcgns.objectives.cross_attention import CrossModalAttention
from cmcgns.objectives.masked_reconstruction import MaskedReconstruction, draw_hidden

Report = tuple[Tensor, Tensor]
"""(B, M, D) sentences and (B, M) which are real."""


@torch.no_grad()
def compare_reports(
    rebuilding: MaskedReconstruction,
    attention: CrossModalAttention,
    model: ImageReportModel,
    features: Features,
    batch: Batch,
    target: Tensor,
    other: Report,
    generator: torch.Generator,
    *,
    draws: int = 1,
    inside: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Sums of the errors of every study where hidden, with three reports; the same regions are hidden from all.

    Args:
        rebuilding: with the decoder.
        attention: of the alignment losses.
        model: gave the features.
        features: of the batch.
        batch: B studies.
        target: (B, K, H, W).
        other: reports of other studies.
        generator: draws the regions.
        draws: how often.
        inside: (B, 1, H, W) by which share a place counts; by default all of them do.

    Returns:
        (3, B) with the own report, the other and none, which means that no sentence is real: f_R2I is 0; and (B,) how
        many places were summed.
    """
    own = features.sentences, batch.sentence_mask
    reports = (own, other, (own[0], torch.zeros_like(own[1])))
    sums = torch.zeros(3, len(batch), device=target.device)
    counts = torch.zeros_like(sums[0])
    for _ in range(draws):
        hidden = draw_hidden(len(batch), features.patches.shape[1], rebuilding.settings.mask_ratio, generator)
        hidden = hidden.to(target.device)
        patches = rebuilding.seen_patches(model, features.patches, batch.images, hidden)
        rebuilt = (rebuilding.reconstruct(patches, hidden, *report, attention) for report in reports)
        errors = torch.stack([rebuilding.errors(each, target) for each in rebuilt])
        region = rebuilding.region(hidden, target)
        region = region if inside is None else region * inside
        sums += (errors * region).sum((2, 3, 4))
        counts += region.sum((1, 2, 3))
    return sums, counts


def other_reports(report_text: Tensor) -> tuple[Tensor, Tensor]:
    """For every study the next one in the batch, cyclically, whose report differs.

    Args:
        report_text: (B,) equal numbers mean equal text; images of one study share it.

    Returns:
        (B,) rows, and (B,) whether there is one.
    """
    place = torch.arange(len(report_text), device=report_text.device)
    distance = (place[None, :] - place[:, None]) % len(place)
    distance = distance.masked_fill(report_text[:, None] == report_text[None, :], len(place))
    nearest, partner = distance.min(1)
    return partner, nearest < len(place)
