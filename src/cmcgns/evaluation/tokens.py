"""Patch tokens of a split, a few images at a time: of a whole split they would not fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from cmcgns.common.errors import UserError
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.image_set import ImageSet
from cmcgns.metrics.ranking import IntArray

_BATCH = 64


def token_batches(
    encoder: FrozenEncoder, images: ImageSet, rows: IntArray, tell: Callable[[float], None]
) -> Iterator[tuple[IntArray, torch.Tensor]]:
    """Some images (b,) at a time and their tokens (b, P, C), where the encoder is.

    Raises:
        UserError: a token that is not finite; names the image.
    """
    for start in range(0, len(rows), _BATCH):
        tell(start / len(rows))
        batch = rows[start : start + _BATCH]
        tokens = encoder.tokens(encoder.tensors(np.asarray(images.pixels[batch]))).float()
        finite = torch.isfinite(tokens).flatten(1).all(1).cpu().numpy()
        if not finite.all():
            raise UserError(f"{encoder.name}: tokens of {images.names[batch[~finite][0]]} are not finite")
        yield batch, tokens
