"""What the rivals have in common: which parts of the model they train."""

from collections.abc import Iterable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmcgns.models.model import ImageReportModel
from cmcgns.objectives.cross_attention import CrossModalAttention
from cmcgns.objectives.objective import Figures, MapKind, Objective, Stage


class Rival(Objective):
    """An objective that trains both encoders, their heads and all of its own in both stages alike.

    Attributes:
        uses_patches: whether a loss reads f_I, so that the projection of patches is trained.
        uses_globals: whether a loss reads the embeddings of whole images or reports, so that their heads are.
        map_kinds: maps of phrases that a loss trains, `pooled` where it reads whole images and reports.
    """

    uses_patches = False
    uses_globals = True
    map_kinds: ClassVar[tuple[MapKind, ...]] = ("pooled",)

    def trainable_parts(self, model: ImageReportModel, stage: Stage) -> Iterable[nn.Module]:  # noqa: ARG002
        """Both encoders, the heads that a loss reads, and this module."""
        parts = [model.image_encoder, model.report_encoder, model.token_projection, self]
        if self.uses_globals:
            parts += [model.image_pool, model.image_projection, model.sentence_pool]
        if self.uses_patches:
            parts += [model.patch_projection]
        return parts

    def lacks_map(self, kind: MapKind) -> str:
        """That no loss of it trains such a map."""
        trained = [each for each in self.map_kinds if each != "pooled" or self.uses_globals]
        if kind in trained:
            return ""
        others = f" (maps that it trains: {', '.join(trained)})" if trained else ""
        return f"the run has objective.name {self.settings.name}{others}"


class AttentiveRival(Rival):
    """A rival whose sentences look at patches by an attention that is learned, and by which none is scored.

    Attributes:
        attention: of sentences on patches.
    """

    attention: CrossModalAttention

    @property
    def reader(self) -> CrossModalAttention:
        """The attention."""
        return self.attention

    def queries(self, sentences: Tensor) -> Tensor:
        """Sentence embeddings f_R (..., D) as they are: their length takes part in the attention, as in training."""
        return sentences


def within_study_contrast(first: Tensor, second: Tensor, others: Tensor, temperature: float) -> Tensor:
    """`-½ [log softmax_m(cos(x_j, o_m)/τ)_j + log softmax_m(cos(x_m, o_j)/τ)_j]` of every j of a study.

    Args:
        first: (B, T, D) x, any length.
        second: (B, T, D) o, any length; row j belongs to row j of x.
        others: (B, T, T) true for the m that j is told apart from; j itself always counts.
        temperature: τ.

    Returns:
        (B, T); exactly 0 for a row that is alone, such as padding.
    """
    cosines = F.normalize(first.float(), dim=-1) @ F.normalize(second.float(), dim=-1).transpose(1, 2)
    own = torch.eye(others.shape[1], dtype=torch.bool, device=others.device)
    logits = (cosines / temperature).masked_fill(~(others | own), -torch.inf)
    return (logits.logsumexp(2) + logits.logsumexp(1)) / 2 - logits.diagonal(dim1=1, dim2=2)


def pairs_of(mask: Tensor) -> Tensor:
    """(B, T) -> (B, T, T) true where both are."""
    return mask[:, :, None] & mask[:, None]


def weighted_sum(terms: Figures, weights: dict[str, float]) -> Tensor:
    """The loss: every term times its weight, 1 where none is given."""
    return torch.stack([weights.get(name, 1.0) * term for name, term in terms.items()]).sum()
