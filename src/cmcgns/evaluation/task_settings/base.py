"""What the settings of all tasks share, and how they are found by the name that a protocol gives."""

from __future__ import annotations

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Annotated, ClassVar, TypeVar

from pydantic import Field

from cmcgns.common.errors import UserError, did_you_mean, shortened
from cmcgns.settings.config import Settings

PARTS = ("train", "val", "test")
RANKING = ["auroc", "auprc"]
CALIBRATION = ["brier", "ece"]
RARE_MEAN = "auroc_rare"  # only where a label is rare in training and has enough test patients
MULTICLASS = ["accuracy", "macro_f1"]
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


_SETTINGS: dict[str, type[TaskSettings]] = {}
Kind = TypeVar("Kind", bound=type[TaskSettings])


def register(task: str) -> Callable[[Kind], Kind]:
    """Class decorator: a protocol's `task` finds the settings by this name."""

    def add(kind: Kind) -> Kind:
        _SETTINGS[task] = kind
        return kind

    return add


@cache
def _load() -> None:
    package = import_module(str(__package__))
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        import_module(module.name)  # which registers what it holds


def task_names() -> list[str]:
    """Names of the tasks, in order."""
    _load()
    return sorted(_SETTINGS)


def find_task_settings(task: str) -> type[TaskSettings]:
    """The settings of a task.

    Raises:
        UserError: no such task, with the nearest right name.
    """
    names = task_names()
    if task not in names:
        hint = did_you_mean(task[:100], names)
        raise UserError(f"there is no task {shortened(task)}.{hint} There are {', '.join(names)}")
    return _SETTINGS[task]
