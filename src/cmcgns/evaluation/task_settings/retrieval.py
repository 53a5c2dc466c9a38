"""What a protocol may set for retrieval between images and reports."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cmcgns.evaluation.task_settings.base import TaskSettings, register
from cmcgns.pretrained.model import By
from cmcgns.pretrained.prompts import PromptSource
from cmcgns.settings.config import TextKind

Ks = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]


@register("retrieval")
class RetrievalSettings(TaskSettings):
    """What counts as right, and how far to look."""

    by: By = "global"
    """of recall; global: cosine of the global embeddings; local: mean over a report's sentences, each beside
    what it sees in the image with its own query; sum: both, each over its spread in the run's validation.
    Precision by class stays global"""
    ks: Ks = (1, 5, 10)
    """of recall: is a right item among the k nearest?"""
    text: TextKind | Literal["recipe"] = "recipe"
    """which text is the report; recipe: as in pretraining"""
    classes: bool = False
    """also precision at k by class (CheXpert-5x200, MIMIC-5x200): images with one of the labels"""
    class_ks: Ks = (1, 5, 10)
    """of precision by class"""
    prompts: PromptSource = "built-in"
    """positive sentences of the labels, found by their images"""
    limit: Annotated[int, Field(ge=2)] | None = None
    """at most so many images, whole studies drawn by `seed`; recall depends on the gallery's size"""
    seed: Annotated[int, Field(ge=0)] = 0

    @property
    def figures(self) -> list[str]:
        """Recall both ways, and precision by class where it is asked for."""
        pairs = ("report_to_image", "image_to_report")
        by_class = (*pairs, "image_to_prompt", "image_to_image") if self.classes else ()
        recall = [f"{way}_r@{k}" for way in pairs for k in sorted(self.ks, reverse=True)]
        return [*recall, *(f"{way}_p@{k}" for way in by_class for k in self.class_ks)]
