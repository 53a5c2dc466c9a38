"""What a protocol may set for the detection of boxes."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cmcgns.evaluation.task_settings.base import PARTS, TaskSettings, register
from cmcgns.metrics.detection import figure_names
from cmcgns.settings.config import Positive, Weight

Overlap = Annotated[float, Field(gt=0, le=1)]


@register("detection")
class DetectionSettings(TaskSettings):
    """How the head is trained and judged."""

    parts: ClassVar[tuple[str, ...]] = PARTS

    head_width: Annotated[int, Field(ge=8)] = 512
    """channels at the coarsest level, halved upwards"""
    epochs: Positive = 50
    patience: Positive = 10
    """epochs without a better validation before training stops"""
    choose_by: Literal["loss", "map"] = "loss"
    """validation figure that chooses the epoch"""
    batch: Positive = 16
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    weight_decay: Weight = 1e-6
    ious: list[Overlap] = Field([0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75], min_length=1)
    nms: Annotated[float, Field(ge=0, le=1)] = 0.5
    """a box overlapping a better one by more is left out"""
    max_detections: Positive = 100
    """of an image"""
    confidence_floor: Annotated[float, Field(ge=0, le=1)] = 0.0
    """lower scores are left out"""
    skip_empty: bool = False
    """leave out images without a detection or without a box (legacy)"""
    cache_gib: Weight = 64
    """maps of a split that take more are not kept on disk but computed for every batch"""

    @property
    def figures(self) -> list[str]:
        """Precision at overlaps that are asked for, recall, sensitivity."""
        return figure_names(self.ious, self.max_detections)
