"""What a protocol may set for zero-shot classification."""

from __future__ import annotations

from typing import Literal

from cmcgns.evaluation.task_settings.base import (
    CALIBRATION,
    MIN_POSITIVES,
    MULTICLASS,
    RANKING,
    RARE_MEAN,
    MinPositives,
    TaskSettings,
    register,
)
from cmcgns.pretrained.model import By
from cmcgns.pretrained.prompts import PromptSource


@register("zero_shot")
class ZeroShotSettings(TaskSettings):
    """What an image is compared with."""

    min_positives: MinPositives = MIN_POSITIVES
    prompts: PromptSource = "built-in"
    """built-in (pretrained/prompts.yaml), phantom (wording of the synthetic studies), template (`{label}.` and
    `No {label}.`), a YAML file of the same form, or such a mapping itself"""
    ensemble: bool = True
    """false: only the first sentence of each kind"""
    outcome: Literal["binary", "multiclass"] = "binary"
    """binary: each label by positive minus negative cosine; multiclass: the labels exclude each other and the
    largest positive cosine wins"""
    by: By = "global"
    """global: cosine of the global embeddings; local: a sentence beside what it sees in the image with its own
    query; sum: both, each over its spread in the run's validation"""

    @property
    def figures(self) -> list[str]:
        """Areas and calibration, and agreement of labels that exclude each other."""
        return [*(MULTICLASS if self.outcome == "multiclass" else []), *RANKING, *CALIBRATION, RARE_MEAN]
