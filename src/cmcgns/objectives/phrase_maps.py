"""Where in the image a phrase belongs: one value a patch, by similarity or by attention.

Five ways, none of which is trained with boxes:

- `pooled`: cosine of the phrase's global embedding with each patch, pooled alone (`ImageReportModel.pool_patches`).
- `patches`: cosine of the phrase's sentence embedding f_R with the patch's f_I. No loss of CM-CGNS compares the two
  directly; some rivals' do.
- `attention`: the weight that the sentence gives to the patch in the cross-modal attention.
- `gated`: that weight times the product of the patch's value with the sentence, `w_p z1·v_p`: what the patch adds to
  the numerator of the local score (where every
  sentence looks at every image). A sentence that the image does not bear out has a map
  that is low everywhere.
- `joint`: what of `gated` and of `pooled` is above 0, multiplied: high where both readings of the phrase, as a
  sentence that looks for itself and as a whole report, find it (query-matched form only).
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cmcgns.common.errors import UserError
from cmcgns.data.images.place import place_in_square
from cmcgns.models.model import ImageReportModel
from cmcgns.objectives.objective import MapKind, Objective


@torch.no_grad()
def patch_maps(
    net: ImageReportModel, objective: Objective, tokens: Tensor, phrases: tuple[Tensor, Tensor], kind: MapKind
) -> Tensor:
    """One map for every image and phrase.

    Args:
        net: both encoders.
        objective: that trained them, and does not lack the map.
        tokens: (B, P, C) of the image encoder.
        phrases: (K, D) sentence embeddings f_R, and (K, D) global embeddings.
        kind: see above.

    Returns:
        (B, K, P): cosines, attention weights, or products.
    """
    if kind == "joint":
        gated, cosines = (patch_maps(net, objective, tokens, phrases, each) for each in ("gated", "pooled"))
        return gated.clamp(min=0) * cosines.clamp(min=0)
    local, pooled = phrases
    if kind == "pooled":
        return pooled @ net.pool_patches(tokens).transpose(1, 2)
    patches = net.project_patches(tokens)
    if kind == "patches":
        return F.normalize(local, dim=-1) @ patches.transpose(1, 2)
    reader, queries = objective.reader, objective.queries(local)
    assert reader is not None  # else the objective lacks the map
    found = reader.gated_products if kind == "gated" else reader.weights
    return found(patches.float(), queries).transpose(1, 2)


def grid_side(patches: int) -> int:
    """h of P = h · h patches.

    Raises:
        UserError: P is no square number.
    """
    side = math.isqrt(patches)
    if side * side != patches:
        raise UserError(f"{patches} patches form no square grid")
    return side


def to_pixels(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, P) maps over a square grid, row-major -> (N, H, W), interpolated between the patches' centres.

    Raises:
        UserError: P is no square number.
    """
    side = grid_side(maps.shape[1])
    grid = maps.unflatten(1, (1, side, side))
    return F.interpolate(grid, size=size, mode="bilinear", align_corners=False)[:, 0]


def unpad(values: Tensor, width: int, height: int) -> NDArray[np.float32]:
    """(P,) of the square that the encoder saw -> (height, width) of the picture inside it."""
    side = max(width, height)
    square = to_pixels(values[None], (side, side))[0].cpu().numpy()
    return np.ascontiguousarray(square[place_in_square(width, height, side).inside])
