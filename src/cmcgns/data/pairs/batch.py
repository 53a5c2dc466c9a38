"""What one training step consumes."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

from cmcgns.common.errors import UserError


@dataclass
class Batch:
    """B studies: B radiographs and the B reports that belong to them.

    L and M are padded bounds: no other shape of a step depends on the data.

    Attributes:
        images: (B, 1, H, W) float, normalised (0.5 mean, 0.5 standard deviation: -1 is black, 1 is white).
        token_ids: (B, L) word pieces of the report, [CLS] first, [SEP] last, then padding.
        token_mask: (B, L) true for every word piece that is not padding.
        token_sentence: (B, L) index of the sentence a word piece belongs to; -1 for [CLS], [SEP], padding.
        sentence_mask: (B, M) true for real sentences, which come first.
        sentence_text: (B, M) equal numbers mean equal normalised text; 0 for padding.
        report_text: (B,) the same for whole reports.
        study_ids: B names for messages.
    """

    images: Tensor
    token_ids: Tensor
    token_mask: Tensor
    token_sentence: Tensor
    sentence_mask: Tensor
    sentence_text: Tensor
    report_text: Tensor
    study_ids: tuple[str, ...] = ()

    def check(self) -> Self:
        """Refuse shapes that do not fit together.

        Raises:
            UserError: naming the field and its shape.
        """
        if self.images.ndim != 4 or self.images.shape[1] != 1:
            raise UserError(f"Batch.images has shape {tuple(self.images.shape)}; (B, 1, H, W) is expected")
        studies, length = self.token_ids.shape
        sentences = self.sentence_mask.shape[1]
        expected = {
            "images": (studies, *self.images.shape[1:]),
            "token_mask": (studies, length),
            "token_sentence": (studies, length),
            "sentence_mask": (studies, sentences),
            "sentence_text": (studies, sentences),
            "report_text": (studies,),
        }
        for name, shape in expected.items():
            if tuple(getattr(self, name).shape) != shape:
                found = tuple(getattr(self, name).shape)
                raise UserError(f"Batch.{name} has shape {found}; {shape} is expected beside the token ids")
        return self

    def to(self, device: torch.device | str) -> "Batch":
        """Copy every tensor to a device; pinned host memory is copied without waiting."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """Copy to page-locked memory (called by the data loader)."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        tensors: dict[str, Any] = {
            field.name: function(getattr(self, field.name)) for field in fields(self) if field.name != "study_ids"
        }
        return replace(self, **tensors)

    def __len__(self) -> int:
        return len(self.token_ids)
