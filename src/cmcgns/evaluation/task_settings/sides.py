"""What a protocol may set for left and right."""

from __future__ import annotations

from typing import get_args

from cmcgns.evaluation.task_settings.base import TaskSettings, register
from cmcgns.pretrained.model import By
from cmcgns.pretrained.prompts import PromptSource

SIDE_ACCURACY = "side_accuracy"


@register("sides")
class SidesSettings(TaskSettings):
    """What tells that a sentence states a finding."""

    prompts: PromptSource = "built-in"
    """as for zero-shot; of it the words of each label"""

    @property
    def figures(self) -> list[str]:
        """By each score, although a run may not have all."""
        return [f"{SIDE_ACCURACY}_{by}" for by in get_args(By)]
