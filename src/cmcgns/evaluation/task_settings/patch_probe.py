"""What a protocol may set for logistic regression on patches."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cmcgns.evaluation.task_settings.base import PARTS, MinPositives, TaskSettings, register
from cmcgns.evaluation.task_settings.linear import L2_GRID
from cmcgns.settings.config import Positive


@register("patch_probe")
class PatchProbeSettings(TaskSettings):
    """What patches are told apart, and how the layers on top are found."""

    parts: ClassVar[tuple[str, ...]] = PARTS
    min_positives: MinPositives = 5
    """test patients with the finding that it needs to count in a mean"""
    target: Literal["boxes", "masks"] = "boxes"
    """boxes by their labels, filled; or masks, where the protocol has one label, theirs"""
    finding_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """a patch with this share of a finding's region is positive too, so that findings smaller than half a
    patch count; null: only patches of which half lies in the region"""
    max_negatives: Positive = 200_000
    """patches in no region that are kept of all training images, and of validation, as many of each image (at
    least one), drawn by `seed`; positive patches and all of test are always kept"""
    seed: Annotated[int, Field(ge=0)] = 0
    l2_grid: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] = Field(list(L2_GRID))
    """strengths among which validation chooses"""

    @property
    def figures(self) -> list[str]:
        """Average precision, and what scores at random get."""
        return ["ap", "ap_chance"]
