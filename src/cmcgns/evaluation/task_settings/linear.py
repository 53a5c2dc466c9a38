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
    epochs: Annotated[int, Field(ge=1)] = Field(100, description="at most")
    patience: Annotated[int, Field(ge=1)] = Field(10, description="epochs without a lower validation loss")


class FinetuneSettings(Settings):
    """How encoder and layer are trained."""

    learning_rate: Annotated[float, Field(gt=0)] = Field(1e-4, description="of the encoder's last layers")
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        0.75, description="factor of the learning rate from one stage or block to the one before it; 1: all alike"
    )
    head_learning_rate: Annotated[float, Field(gt=0)] = Field(1e-3, description="of the linear layer")
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    batch_size: Annotated[int, Field(ge=2)] = 32
    epochs: Annotated[int, Field(ge=1)] = Field(20, description="at most")
    patience: Annotated[int, Field(ge=1)] = Field(5, description="epochs without a lower validation loss")


@register("linear")
class LinearSettings(TaskSettings):
    """How the layer on top is found."""

    parts: ClassVar[tuple[str, ...]] = PARTS
    min_positives: MinPositives = MIN_POSITIVES
    solver: Literal["lbfgs", "adamw"] = Field(
        "lbfgs", description="lbfgs: logistic regression to convergence; adamw: trained as `adamw` says (legacy)"
    )
    outcome: Outcome = Field("binary", description="multiclass: the labels exclude each other, one softmax over them")
    l2_grid: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] = Field(
        list(L2_GRID), description="strengths among which validation chooses (lbfgs)"
    )
    adamw: LegacySettings = LegacySettings()
    finetune: bool = Field(False, description="train the encoder too, as `finetuning` says; no linear probe then")
    finetuning: FinetuneSettings = FinetuneSettings()
    precision: Literal["auto", "float32", "float64"] = Field(
        "auto", description="of lbfgs; auto: float64 where there are few rows, float32 else"
    )

    @property
    def figures(self) -> list[str]:
        """Areas and calibration, and agreement of classes that exclude each other."""
        return [*(MULTICLASS if self.outcome == "multiclass" else []), *RANKING, *CALIBRATION, RARE_MEAN]
