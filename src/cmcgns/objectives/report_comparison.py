"""What a report is worth to the reconstruction of hidden regions: a study's own one, another study's, and none."""

import torch
from torch import Tensor

from cmcgns.data.pairs.batch import Batch
from cmcgns.models.model import Features, ImageReportModel
from cmcgns.objectives.cross_attention import CrossModalAttention
from cmcgns.objectives.masked_reconstruction import MaskedReconstruction, draw_hidden

Report = tuple[Tensor, Tensor]
"""(B, M, D) sentences and (B, M) which are real."""


def errors_by_report(
    rebuilding: MaskedReconstruction,
    attention: CrossModalAttention,
    patches: Tensor,
    hidden: Tensor,
    target: Tensor,
    own: Report,
    other: Report,
) -> Tensor:
    """Errors of the same hidden regions with three reports.

    Args:
        rebuilding: with the decoder.
        attention: of the alignment losses.
        patches: (B, P, D) of `seen_patches`.
        hidden: (B, P).
        target: (B, K, H, W).
        own: of the studies.
        other: of other studies.

    Returns:
        (3, B, 1, H, W): own, other, none. None means that no sentence is real: f_R2I is 0.
    """
    reports = (own, other, (own[0], torch.zeros_like(own[1])))
    rebuilt = (rebuilding.reconstruct(patches, hidden, *report, attention) for report in reports)
    return torch.stack([rebuilding.errors(each, target) for each in rebuilt])


@torch.no_grad()
def compare_reports(
    rebuilding: MaskedReconstruction,
    attention: CrossModalAttention,
    model: ImageReportModel,
    features: Features,
    batch: Batch,
    target: Tensor,
    partner: Tensor,
) -> Tensor:
    """(3, B) mean error of every study where hidden, as `errors_by_report`; always the same regions are hidden.

    Args:
        rebuilding: with the decoder.
        attention: of the alignment losses.
        model: gave the features.
        features: of the batch.
        batch: B studies.
        target: (B, K, H, W).
        partner: (B,) rows whose reports are the others.
    """
    generator = torch.Generator(batch.images.device).manual_seed(0)
    count, ratio = features.patches.shape[1], rebuilding.settings.mask_ratio
    hidden = draw_hidden(len(batch), count, ratio, generator)
    patches = rebuilding.seen_patches(model, features.patches, batch.images, hidden)
    own = features.sentences, batch.sentence_mask
    other = features.sentences[partner], batch.sentence_mask[partner]
    errors = errors_by_report(rebuilding, attention, patches, hidden, target, own, other)
    region = rebuilding.region(hidden, target)
    return (errors * region).sum((2, 3, 4)) / region.sum((1, 2, 3)).clamp(min=1)
