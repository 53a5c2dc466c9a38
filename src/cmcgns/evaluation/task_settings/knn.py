"""What a protocol may set for nearest neighbours."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from cmcgns.evaluation.task_settings.base import (
    MIN_POSITIVES,
    PARTS,
    RANKING,
    RARE_MEAN,
    MinPositives,
    TaskSettings,
    register,
)


@register("knn")
class KnnSettings(TaskSettings):
    """Who votes, and how loudly."""

    parts: ClassVar[tuple[str, ...]] = PARTS
    min_positives: MinPositives = MIN_POSITIVES
    k: Annotated[int, Field(ge=1)] = 20
    """neighbours; fewer where fewer images have the label"""
    temperature: Annotated[float, Field(gt=0)] = 0.07

    @property
    def figures(self) -> list[str]:
        """Areas alone: shares of votes are no probabilities."""
        return [*RANKING, RARE_MEAN]
