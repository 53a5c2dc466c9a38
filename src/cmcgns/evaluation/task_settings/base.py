"""What the settings of all tasks share, and how they are found by the name that a protocol gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cmcgns.common.errors import UserError, did_you_mean, shortened
from cmcgns.common.registry import Registry
from cmcgns.settings.config import Settings

PARTS = ("train", "val", "test")
RANKING = ["auroc", "auprc"]
CALIBRATION = ["brier", "ece"]
RARE_MEAN = "auroc_rare"  # only where a label is rare in training and has enough test patients
MULTICLASS = ["accuracy", "macro_f1"]
Target = Literal["masks", "boxes"]
"""What is to be drawn or told apart."""
LabelKind = Literal["binary", "multiclass"]
"""Whether every label has an answer of its own, or the labels exclude each other."""
MinPositives = Annotated[int, Field(ge=1)]
MIN_POSITIVES = Field(5, description="positive and negative test patients that a class must have to count in a mean")


class TaskSettings(Settings, ABC):
    """What a protocol may set for one task, and what it may expect.

    Attributes:
        parts: the splits whose rows enter a result; with `train` among them the task is trained, so that there are
            fractions and seeds.
    """

    parts: ClassVar[tuple[str, ...]] = ("test",)

    @property
    @abstractmethod
    def figures(self) -> list[str]:
        """Figures over all rows that the task may make with these settings: what `primary` can name."""


_SETTINGS: Registry[TaskSettings] = Registry(str(__package__))
register = _SETTINGS.register  # a protocol's `task` finds the settings by this name


def task_names() -> list[str]:
    """Names of the tasks, in order."""
    return list(_SETTINGS.load())


def find_task_settings(task: str) -> type[TaskSettings]:
    """The settings of a task.

    Raises:
        UserError: no such task, with the nearest right name.
    """
    known = _SETTINGS.load()
    if task not in known:
        hint = did_you_mean(task[:100], known)
        raise UserError(f"there is no task {shortened(task)}.{hint} There are {', '.join(known)}")
    return known[task]
