"""What a protocol may set for a linear layer on features, frozen or trained with it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cmcgns.evaluation.task_settings.base import (
    CALIBRATION,
    MIN_POSITIVES,
    MULTICLASS,
    PARTS,
    RANKING,
    RARE_MEAN,
    MinPositives,
    TaskSettings,
    register,
)
from cmcgns.settings.config import Settings

L2_GRID = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
Outcome = Literal["binary", "multiclass"]


class LegacySettings(Settings):
    """How the layer is trained."""

    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    weight_decay: Annotated[float, Field(ge=0)] = 1e-6
    batch_size: Annotated[int, Field(ge=1)] = 48
    epochs: Annotated[int, Field(ge=1)] = 100
    """at most"""
    patience: Annotated[int, Field(ge=1)] = 10
    """epochs without a lower validation loss"""


class FinetuneSettings(Settings):
    """How encoder and layer are trained."""

    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """of the encoder's last layers"""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 0.75
    """factor of the learning rate from one stage or block to the one before it; 1: all alike"""
    head_learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """of the linear layer"""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    batch_size: Annotated[int, Field(ge=2)] = 32
    epochs: Annotated[int, Field(ge=1)] = 20
    """at most"""
    patience: Annotated[int, Field(ge=1)] = 5
    """epochs without a lower validation loss"""


@register("linear")
class LinearSettings(TaskSettings):
    """How the layer on top is found."""

    parts: ClassVar[tuple[str, ...]] = PARTS
    min_positives: MinPositives = MIN_POSITIVES
    solver: Literal["lbfgs", "adamw"] = "lbfgs"
    """lbfgs: logistic regression to convergence; adamw: trained as `adamw` says (legacy)"""
    outcome: Outcome = "binary"
    """multiclass: the labels exclude each other, one softmax over them"""
    l2_grid: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] = Field(list(L2_GRID))
    """strengths among which validation chooses (lbfgs)"""
    adamw: LegacySettings = LegacySettings()
    finetune: bool = False
    """train the encoder too, as `finetuning` says; no linear probe then"""
    finetuning: FinetuneSettings = FinetuneSettings()
    precision: Literal["auto", "float32", "float64"] = "auto"
    """of lbfgs; auto: float64 where there are few rows, float32 else"""

    @property
    def figures(self) -> list[str]:
        """Areas and calibration, and agreement of classes that exclude each other."""
        return [*(MULTICLASS if self.outcome == "multiclass" else []), *RANKING, *CALIBRATION, RARE_MEAN]
