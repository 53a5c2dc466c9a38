"""Where in a radiograph a phrase belongs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from cmcgns.data.dataset import normalise_pixels
from cmcgns.data.images import place_in_square
from cmcgns.data.pictures import Picture, picture_size, read_picture
from cmcgns.errors import UserError
from cmcgns.evaluation.phrase_maps import MapKind, embed_phrases, patch_maps, to_pixels, untrained

if TYPE_CHECKING:
    from cmcgns.pretrained.model import Floats, Pretrained


@torch.no_grad()
def phrase_map(model: Pretrained, path: Picture, phrase: str, against: str, kind: MapKind) -> Floats:
    """The map of :meth:`cmcgns.pretrained.Pretrained.ground`; its arguments and errors.

    Returns:
        (H, W), as large as the picture.
    """
    if reason := untrained(model, kind):
        raise UserError(f"ground: no map of kind {kind}: {reason}")
    pixels = read_picture(path, model.recipe.data.image_size)[None]
    tokens = model.task.model.image_encoder.tokens(normalise_pixels(pixels)[:, None].to(model.device))
    maps = patch_maps(model, tokens, embed_phrases(model, [phrase, *([against] if against else [])]), kind)[0]
    values = maps[0] - maps[1] if against else maps[0]
    return _unpadded(values, *picture_size(path))


def _unpadded(values: torch.Tensor, width: int, height: int) -> Floats:
    """(P,) of the square that the encoder saw -> (height, width) of the picture inside it."""
    side = max(width, height)
    _, left, top = place_in_square(width, height, side)
    square = to_pixels(values[None], (side, side))[0].cpu().numpy()
    return np.ascontiguousarray(square[top : top + height, left : left + width])
