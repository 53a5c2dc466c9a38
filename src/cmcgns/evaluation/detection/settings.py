"""Settings of the detection task; the defaults are those of v1."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cmcgns.config import Positive, Settings, Weight

Overlap = Annotated[float, Field(gt=0, le=1)]


class DetectionSettings(Settings):
    """How the head is trained and judged."""

    head_width: Annotated[int, Field(ge=8)] = Field(512, description="channels at the coarsest level, halved upwards")
    epochs: Positive = 50
    patience: Positive = Field(10, description="epochs without a better validation before training stops")
    choose_by: Literal["loss", "map"] = Field("loss", description="validation figure that chooses the epoch")
    batch: Positive = 16
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    weight_decay: Weight = 1e-6
    ious: list[Overlap] = Field([0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75], min_length=1)
    nms: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5, description="a box overlapping a better one by more is left out"
    )
    max_detections: Positive = Field(100, description="of an image")
    confidence_floor: Annotated[float, Field(ge=0, le=1)] = Field(0.0, description="lower scores are left out")
    skip_empty: bool = Field(False, description="leave out images without a detection or without a box (legacy)")
    cache_gib: Weight = Field(
        64, description="maps of a split that take more are not kept on disk but computed for every batch"
    )
