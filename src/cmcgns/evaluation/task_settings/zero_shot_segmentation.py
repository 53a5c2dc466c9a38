"""What a protocol may set for regions that are cut out of a map."""

from __future__ import annotations

from typing import ClassVar, Literal

from cmcgns.evaluation.task_settings.base import MinPositives, TaskSettings, register
from cmcgns.objectives.objective import MapKind
from cmcgns.pretrained.prompts import PromptSource


@register("zero_shot_segmentation")
class MapSegmentationSettings(TaskSettings):
    """What is said, which map is cut, and against what."""

    parts: ClassVar[tuple[str, ...]] = ("val", "test")

    min_positives: MinPositives = 5
    """test patients with the label that it needs to count in a mean"""
    target: Literal["boxes", "masks"] = "boxes"
    """boxes by their labels, filled; or masks, where the protocol has one label, theirs"""
    prompts: PromptSource = "built-in"
    """as for zero-shot"""
    ensemble: bool = True
    """mean map of all prompts of a kind; false: of the first one"""
    kind: Literal["default"] | MapKind = "default"
    """of map; default: the one that the run's validation chose"""

    @property
    def figures(self) -> list[str]:
        """Overlap, and what drawing everything gets."""
        return ["dice", "iou", "dice_chance"]
