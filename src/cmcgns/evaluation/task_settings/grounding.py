"""What a protocol may set for the grounding of phrases."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cmcgns.evaluation.task_settings.base import TaskSettings, register
from cmcgns.metrics.overlap import THRESHOLDS
from cmcgns.pretrained.prompts import PromptSource

PhraseKind = Literal["label", "sentence"]


@register("grounding")
class GroundingSettings(TaskSettings):
    """What is said, and how maps are made and judged."""

    phrases: PhraseKind = "label"
    """label: prompts of the boxes' labels; sentence: the boxes' own text or report sentences"""
    prompts: PromptSource = "built-in"
    """as for zero-shot"""
    ensemble: bool = True
    """label: mean map of all positive prompts; false: of the first one"""
    similarity: Literal["pooled", "patches"] = "pooled"
    """pooled: patches in the space of the global embeddings; patches: f_I with f_R"""
    contrast: bool = True
    """similarity with the label's negative prompts is subtracted; attention stays as it is"""
    thresholds: Annotated[tuple[float, ...], Field(min_length=1)] = THRESHOLDS
    """of the overlap"""
    overlap: Literal["stretched", "raw"] = "stretched"
    """the thresholds apply to maps stretched to [0, 1], or as they are"""

    @property
    def figures(self) -> list[str]:
        """Those of all maps, although a run without attention has fewer."""
        kinds = ("pointing", "cnr", "cnr_absolute", "miou")
        return [f"{kind}_{of}" for of in ("similarity", "attention", "default") for kind in kinds] + [
            "pointing_chance"
        ]
