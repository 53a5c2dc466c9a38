"""ConVIRT (Zhang et al., "Contrastive Learning of Medical Visual Representations from Paired Images and Text")."""

from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from cmcgns.data.pairs.batch import Batch
from cmcgns.models.model import ImageReportModel
from cmcgns.objectives.collective import own_rows, world_size
from cmcgns.objectives.global_alignment import global_alignment_loss
from cmcgns.objectives.numerics import full_precision
from cmcgns.objectives.objective import Figures, register
from cmcgns.objectives.rivals.rival import Rival
from cmcgns.settings.config import Settings


class ConVIRTOptions(Settings):
    """Its own settings."""

    image_weight: Annotated[float, Field(ge=0, le=1)] = 0.75
    """lambda: of image -> text; the other direction has the rest"""
    one_sentence: bool = True
    """a report stands for itself by one of its sentences, drawn anew in every step; false: by all of them"""


def draw_sentence(sentence_mask: Tensor, seed: int) -> Tensor:
    """(B, M) true for one real sentence a study, none where there is none; the same whatever ranks and padding."""
    studies = len(sentence_mask)
    generator = torch.Generator(sentence_mask.device).manual_seed(seed)
    # A number a study, not one a sentence: the draw would change with the padding.
    share = torch.rand(studies * world_size(), generator=generator, device=sentence_mask.device)[own_rows(studies)]
    place = sentence_mask.cumsum(1)
    return sentence_mask & (place == (share * place[:, -1]).long()[:, None] + 1)


def only_sentence(batch: Batch, chosen: Tensor) -> Batch:
    """The batch with (B, M) chosen sentences alone: the encoder sees no word of another one."""
    place = batch.token_sentence.clamp(min=0)
    kept = chosen.gather(1, place) | (batch.token_sentence < 0)
    return replace(batch, token_mask=batch.token_mask & kept, sentence_mask=chosen)


@register("convirt")
class ConVIRT(Rival):
    """`1/B Σ_i (λ l_i(v→u) + (1-λ) l_i(u→v))`, equations 3 to 5, at a fixed temperature (0.1 in the paper).

    The temperature is `objective.temperature`.

    Departures: heads are those of all objectives here (attention and a linear map to `objective.dim` numbers, instead
    of the mean of the image and the maximum of the words with two layers behind them); negatives come from all ranks;
    evaluation embeds whole reports, also where training draws sentences, and a drawn sentence keeps the positions
    that it has in its report.
    """

    Options = ConVIRTOptions
    options: ConVIRTOptions

    def forward(self, model: ImageReportModel, batch: Batch, seed: int) -> tuple[Figures, Figures]:
        """Losses and metrics of a batch."""
        if self.options.one_sentence and self.training:
            batch = only_sentence(batch, draw_sentence(batch.sentence_mask, seed))
        features = model(batch)
        with full_precision(features.image_global):
            loss = global_alignment_loss(
                features.image_global, features.report_global, 1 / self.settings.temperature,
                image_weight=self.options.image_weight,
            )  # fmt: skip
        return {"loss": loss, "global": loss}, {}
