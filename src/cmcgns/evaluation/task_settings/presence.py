"""What a protocol may set for the presence of findings by the largest value of a map."""

from __future__ import annotations

from typing import get_args

from cmcgns.evaluation.task_settings.base import MIN_POSITIVES, MinPositives, TaskSettings, register
from cmcgns.objectives.objective import MapKind
from cmcgns.pretrained.prompts import PromptSource

MAP_AUROC = "map_auroc"


@register("presence")
class PresenceSettings(TaskSettings):
    """What is said of a finding."""

    min_positives: MinPositives = MIN_POSITIVES
    prompts: PromptSource = "built-in"
    """as for zero-shot; positive sentences alone"""
    ensemble: bool = True
    """mean map of all positive prompts; false: of the first one"""

    @property
    def figures(self) -> list[str]:
        """The run's default map and each kind, although a run may not have trained all."""
        return [MAP_AUROC, *(f"{MAP_AUROC}_{kind}" for kind in get_args(MapKind))]
