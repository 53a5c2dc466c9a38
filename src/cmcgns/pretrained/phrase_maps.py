"""Where in the image a phrase belongs: one value a patch, by similarity or by attention.

Three ways, none of which is trained with boxes:

- `pooled`: cosine of the phrase's global embedding with each patch, sent alone through the value and output maps of
  the image's attention pool and its projection (Zhou et al., ECCV 2022, section 3.2, for CLIP). The position
  embedding is left out: the map says what a patch shows, not where findings usually are.
- `patches`: cosine of the phrase's sentence embedding f_R with the patch's f_I. No loss of the method compares the
  two directly.
- `attention`: the weight that the sentence gives to the patch in the cross-modal attention.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cmcgns.common.errors import UserError
from cmcgns.data.images.place import place_in_square
from cmcgns.pretrained.embed import Embedder, Floats

MapKind = Literal["pooled", "patches", "attention"]


def untrained(model: Embedder, kind: MapKind) -> str:
    """Why the run cannot give this map: the loss that would have trained it was off, or none; empty if it can."""
    if kind != "pooled" and model.method is None:
        return f"the run has objective.name {model.recipe.objective.name}"
    weight = "weight_global" if kind == "pooled" else "weight_report"
    return f"the run has objective.{weight} 0" if getattr(model.recipe.objective, weight) == 0 else ""


@torch.no_grad()
def patch_maps(model: Embedder, tokens: Tensor, phrases: tuple[Tensor, Tensor], kind: MapKind) -> Tensor:
    """One map for every image and phrase.

    Args:
        model: the run.
        tokens: (B, P, C) of its image encoder.
        phrases: (K, D) local and (K, D) global embeddings, of :meth:`cmcgns.pretrained.embed.Embedder.encode_texts`.
        kind: see above.

    Returns:
        (B, K, P): cosines, or attention weights.
    """
    net, (local, pooled) = model.task.model, phrases
    if kind == "pooled":
        pool = net.image_pool
        dense = F.normalize(net.image_projection(pool.c_proj(pool.v_proj(tokens))), dim=-1)
        return pooled @ dense.transpose(1, 2)
    patches = net.project_patches(tokens)
    if kind == "patches":
        return F.normalize(local, dim=-1) @ patches.transpose(1, 2)
    sentences = local.expand(len(tokens), -1, -1)
    everyone = torch.ones(sentences.shape[:2], dtype=torch.bool, device=tokens.device)
    assert model.method is not None  # else `untrained` says so
    return model.method.attention.image_to_text(patches, sentences, everyone)[1]


def to_pixels(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, P) maps over a square grid, row-major -> (N, H, W), interpolated between the patches' centres.

    Raises:
        UserError: P is no square number.
    """
    side = math.isqrt(maps.shape[1])
    if side * side != maps.shape[1]:
        raise UserError(f"{maps.shape[1]} patches form no square grid")
    grid = maps.unflatten(1, (1, side, side))
    return F.interpolate(grid, size=size, mode="bilinear", align_corners=False)[:, 0]


def unpad(values: Tensor, width: int, height: int) -> Floats:
    """(P,) of the square that the encoder saw -> (height, width) of the picture inside it."""
    side = max(width, height)
    square = to_pixels(values[None], (side, side))[0].cpu().numpy()
    return np.ascontiguousarray(square[place_in_square(width, height, side).inside])
