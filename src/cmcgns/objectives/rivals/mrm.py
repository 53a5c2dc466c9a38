"""MRM (Zhou et al., "Advancing Radiograph Representation Learning with Masked Record Modeling", ICLR 2023)."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cmcgns.common.errors import UserError
from cmcgns.data.pairs.batch import Batch
from cmcgns.models.image_encoder import ImageEncoder
from cmcgns.models.model import ImageReportModel, start_plain
from cmcgns.models.report_encoder import ReportEncoder, in_parts
from cmcgns.objectives.collective import mean_where, own_rows, world_size
from cmcgns.objectives.masked_reconstruction import MaskedReconstruction, draw_hidden
from cmcgns.objectives.numerics import full_precision
from cmcgns.objectives.objective import Figures, Stage, register
from cmcgns.objectives.reconstruction_targets import normalise_patches
from cmcgns.objectives.rivals.rival import Rival, weighted_sum
from cmcgns.settings.config import ObjectiveSettings, Settings, Weight

_MOST_LOGITS = 2**26  # hidden word pieces × vocabulary at a time, a quarter of a gigabyte; the rest is recomputed
_START = 0.02  # deviation of the mask embedding, as of the word embeddings of a BERT from scratch

Share = Annotated[float, Field(gt=0, lt=1)]


class MRMOptions(Settings):
    """Its own settings."""

    mask: Literal["pixels", "tokens"] = "pixels"
    """pixels are painted over in the image; tokens leaves hidden patches out of the encoder, which a plain ViT can"""
    mask_ratio: Share = 0.75
    """share of the patches that is hidden"""
    word_ratio: Share = 0.5
    """share of a report's word pieces that is hidden"""
    report_weight: Weight = 1.0
    """lambda: of the report's loss; the image's weighs 1"""


def draw_words(real: Tensor, ratio: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Word pieces to hide, at random: round(ratio · n) of the n real ones of a report.

    Args:
        real: (B, L) true for word pieces of a sentence: not for [CLS], [SEP] and padding.
        ratio: of those.
        generator: on the device of `real`.

    Returns:
        (B, K) different places in 0 .. L-1, and (B, K) which of them are hidden; K = round(ratio · L).
    """
    studies, length = real.shape
    # A row for each place: further padding adds draws behind the others, and each rank has columns of its own.
    noise = torch.rand(length, studies * world_size(), generator=generator, device=real.device)
    noise = noise[:, own_rows(studies)].T.masked_fill(~real, -1)
    places = noise.topk(round(ratio * length), dim=1).indices
    count = (ratio * real.sum(1, keepdim=True)).round()
    return places, torch.arange(places.shape[1], device=real.device) < count


class WordPrediction(nn.Module):
    """Hidden word pieces from the visible ones and the image: the report encoder, its embeddings, a bias a word.

    Args:
        dim: D of the image's features.
        table: (V, C) embeddings of word pieces.
    """

    def __init__(self, dim: int, table: Tensor) -> None:
        super().__init__()
        self.image = nn.Linear(dim, table.shape[1])
        start_plain(self.image)
        self.mask = nn.Parameter(torch.randn(table.shape[1]) * _START)
        self.bias = nn.Parameter(torch.zeros(len(table)))

    def states(self, encoder: ReportEncoder, batch: Batch, image: Tensor, places: Tensor, hidden: Tensor) -> Tensor:
        """What the encoder makes of the places to predict.

        Args:
            encoder: of the reports.
            batch: B reports of L word pieces.
            image: (B, D) mean of an image's visible patches; its map is added to every word piece of the report.
            places: (B, K).
            hidden: (B, K) which of them the mask embedding stands for.

        Returns:
            (B, K, C) last hidden states.
        """
        covered = torch.zeros_like(batch.token_mask).scatter(1, places, hidden)
        words = encoder.body.get_input_embeddings()(batch.token_ids)
        words = torch.where(covered[:, :, None], self.mask.to(words.dtype), words) + self.image(image)[:, None]
        found = in_parts(encoder, words, batch.token_mask, batch.token_order, batch.token_lengths)
        return found.gather(1, places[:, :, None].expand(-1, -1, found.shape[2]))

    def errors(self, states: Tensor, words: Tensor, table: Tensor) -> Tensor:
        """(n, C) states and (n,) numbers of the true words -> (n,) cross-entropies over the V rows of the table."""
        at_once = max(1, _MOST_LOGITS // len(table))
        if len(states) <= at_once:
            return self._errors(states, words, table)
        pairs = zip(states.split(at_once), words.split(at_once), strict=True)
        return torch.cat([checkpoint(self._errors, *pair, table, use_reentrant=False) for pair in pairs])

    def _errors(self, states: Tensor, words: Tensor, table: Tensor) -> Tensor:
        logits = F.linear(states, table, self.bias)
        with full_precision(logits):
            return F.cross_entropy(logits.float(), words, reduction="none")


def learn_statistics(encoder: ImageEncoder, images: Tensor) -> None:
    """One pass without gradient over whole images, for running statistics of BatchNorm; none for other encoders."""
    if any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in encoder.modules()):
        with torch.no_grad():
            encoder.tokens(images)


@register("mrm")
class MRM(Rival):
    """Two restorations at once, `L = L_image + λ L_report`, λ = 1: section 3 of the paper.

    - L_image: three quarters of the patches are hidden from the encoder; mean squared error over hidden patches of
      the image, rebuilt at twice the side, each target patch with mean 0 and variance 1.
    - L_report: half of the word pieces are hidden behind a learned embedding; the mean of the visible patches, mapped
      linearly, is added to all word pieces; cross-entropy, mean over the hidden word pieces.

    Means are over all ranks; in eval mode the same places are hidden every time. Images and reports have no space in
    common: nothing trains the embeddings of whole images, of sentences and of reports.

    Departures: the report encoder of the run, with its word embeddings as output layer, stands for the report decoder
    of the paper, six layers of its own. The decoder of images is the convolutional one of all objectives here. Both
    restorations read f_I, unit vectors, not the encoder's own tokens. The image's vector is added to word pieces
    before their positions and normalisation, in the authors' program behind these; there whole words are hidden, here
    word pieces. `mask: pixels` paints hidden patches gray; the paper's ViT leaves them out (`tokens`). Unless
    `objective.target_scale` is 2, the image is rebuilt at its own side. BatchNorm, which a ViT has not, learns its
    running statistics from whole images, in a pass of its own in training: evaluation sees such.

    Attributes:
        rebuilding: the image's part.
        words: the report's part; a finished run has none.
    """

    Options = MRMOptions
    options: MRMOptions
    reads = frozenset({"dim", "decoder_width", "target_scale"})
    training_only = ("words.",)
    uses_patches = True
    uses_globals = False
    words: WordPrediction | None

    def __init__(self, settings: ObjectiveSettings, grid: tuple[int, int], image_size: int, seed: int = 0) -> None:
        super().__init__(settings, grid, image_size, seed)
        masked: dict[str, Any] = {"reconstruction": "image_only", "reconstruct": "hidden", "target": "pixels"}
        masked |= self.options.model_dump(include={"mask", "mask_ratio"})
        settings = settings.model_copy(update=masked | {"target_per_patch": True})
        self.rebuilding = MaskedReconstruction(settings, grid, image_size, "options.")
        self.words = None

    @classmethod
    def contrasts(cls, settings: ObjectiveSettings) -> bool:  # noqa: ARG003
        """Not with anything."""
        return False

    def attach(self, model: ImageReportModel) -> None:
        """Begin the report's part, whose sizes are those of the report encoder.

        Raises:
            UserError: an image encoder that cannot leave patches out; word embeddings narrower than hidden states.
        """
        if self.options.mask == "tokens":
            model.image_encoder.require_patch_drop("objective.options.mask")
        body, width = model.report_encoder.body, model.report_encoder.width
        table: Tensor = body.get_input_embeddings().weight
        if table.shape[1] != width:
            raise UserError(
                f"report_encoder.name: {type(body).__name__} embeds word pieces in {table.shape[1]} dimensions and "
                f"gives {width}; objective.name=mrm compares both, so they must be as many: take another encoder"
            )
        self.words = WordPrediction(self.settings.dim, table)

    def trainable_parts(self, model: ImageReportModel, stage: Stage) -> Iterable[nn.Module]:
        """Both encoders, the projection of patches and this module; not that of words, which nothing reads."""
        return [part for part in super().trainable_parts(model, stage) if part is not model.token_projection]

    def forward(self, model: ImageReportModel, batch: Batch, seed: int) -> tuple[Figures, Figures]:
        """Losses and metrics of a batch."""
        studies, rebuilding = len(batch), self.rebuilding
        patches = rebuilding.grid[0] * rebuilding.grid[1]
        generator = torch.Generator(batch.images.device).manual_seed(seed if self.training else 0)
        # Drawn for the batch of all ranks: two ranks hide what one rank of twice the batch would.
        hidden = draw_hidden(studies * world_size(), patches, self.options.mask_ratio, generator)[own_rows(studies)]
        whole = batch.images.new_zeros(studies, patches, self.settings.dim)  # for its shape; its f_I is not needed
        seen = rebuilding.seen_patches(model, whole, batch.images, hidden)
        terms = {
            "image": self._image_loss(batch, seen, hidden),
            "report": self._report_loss(model.report_encoder, batch, seen, hidden, generator),
        }
        if self.training:
            learn_statistics(model.image_encoder, batch.images)
        return {"loss": weighted_sum(terms, {"report": self.options.report_weight})} | terms, {}

    def _image_loss(self, batch: Batch, seen: Tensor, hidden: Tensor) -> Tensor:
        rebuilding = self.rebuilding
        # Of image_only nothing but patches is read: neither sentences, their mask nor an attention.
        rebuilt = rebuilding.reconstruct(seen, hidden, seen, hidden, None)  # type: ignore[arg-type]
        with full_precision(rebuilt):
            target = normalise_patches(rebuilding.plain(batch), rebuilding.grid)
            errors = (rebuilt.float() - target).square()
            return mean_where(errors, rebuilding.region(hidden, errors))

    def _report_loss(
        self, encoder: ReportEncoder, batch: Batch, seen: Tensor, hidden: Tensor, generator: torch.Generator
    ) -> Tensor:
        assert self.words is not None
        visible = ~hidden[:, :, None]
        image = (seen * visible).sum(1) / visible.sum(1)
        places, chosen = draw_words(batch.token_sentence >= 0, self.options.word_ratio, generator)
        states = self.words.states(encoder, batch, image, places, chosen).flatten(0, 1)
        words = batch.token_ids.gather(1, places).flatten()
        errors = self.words.errors(states, words, encoder.body.get_input_embeddings().weight)
        with full_precision(errors):
            return mean_where(errors, chosen.flatten())
