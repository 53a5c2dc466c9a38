"""Where in the image a phrase belongs: one value a patch, by similarity or by attention.

Five ways, none of which is trained with boxes:

- `pooled`: cosine of the phrase's global embedding with each patch, pooled alone (`ImageReportModel.pool_patches`).
- `patches`: cosine of the phrase's sentence embedding f_R with the patch's f_I. No loss of the method compares the
  two directly.
- `attention`: the weight that the sentence gives to the patch in the cross-modal attention.
- `gated`: that weight times the product of the patch's value with the sentence, `w_p z1·v_p`: what the patch adds to
  the numerator of the local score (query-matched form only). A sentence that the image does not bear out has a map
  that is low everywhere.
- `joint`: what of `gated` and of `pooled` is above 0, multiplied: high where both readings of the phrase, as a
  sentence that looks for itself and as a whole report, find it (query-matched form only).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cmcgns.models.model import ImageReportModel
from cmcgns.objectives.cmcgns import CMCGNS
from cmcgns.settings.config import ObjectiveSettings

MapKind = Literal["pooled", "patches", "attention", "gated", "joint"]


def untrained(settings: ObjectiveSettings, method: CMCGNS | None, kind: MapKind) -> str:
    """Why there is no such map: the loss that would have trained it was off, or none; empty if there is."""
    if kind == "joint":
        return untrained(settings, method, "gated") or untrained(settings, method, "pooled")
    if kind != "pooled" and method is None:
        return f"the run has objective.name {settings.name}"
    if kind == "gated" and settings.local != "query_matched":
        return f"the run has objective.local {settings.local}"
    weight = "weight_global" if kind == "pooled" else "weight_report"
    return f"the run has objective.{weight} 0" if getattr(settings, weight) == 0 else ""


@torch.no_grad()
def patch_maps(
    net: ImageReportModel, method: CMCGNS | None, tokens: Tensor, phrases: tuple[Tensor, Tensor], kind: MapKind
) -> Tensor:
    """One map for every image and phrase.

    Args:
        net: both encoders.
        method: with the attention; None for another objective, whose only map is `pooled`.
        tokens: (B, P, C) of the image encoder.
        phrases: (K, D) sentence embeddings f_R, and (K, D) global embeddings.
        kind: see above.

    Returns:
        (B, K, P): cosines, attention weights, or products.
    """
    if kind == "joint":
        gated, cosines = (patch_maps(net, method, tokens, phrases, each) for each in ("gated", "pooled"))
        return gated.clamp(min=0) * cosines.clamp(min=0)
    local, pooled = phrases
    if kind == "pooled":
        return pooled @ net.pool_patches(tokens).transpose(1, 2)
    patches = net.project_patches(tokens)
    if kind == "patches":
        return F.normalize(local, dim=-1) @ patches.transpose(1, 2)
    assert method is not None  # else `untrained` says so
    if kind == "gated":
        return method.attention.gated_products(patches.float(), method.queries(local)).transpose(1, 2)
    sentences = method.queries(local).expand(len(tokens), -1, -1)
    everyone = torch.ones(sentences.shape[:2], dtype=torch.bool, device=tokens.device)
    return method.attention.image_to_text(patches, sentences, everyone)[1]
