"""Settings of tasks: each task has some, found by its name; what no task has is refused."""

import re

import pytest

from cmcgns.common.errors import UserError
from cmcgns.evaluation.task_settings import TaskSettings, find_task_settings, task_names
from cmcgns.evaluation.tasks import get_task
from cmcgns.reporting.evaluation.names import DESCRIPTIONS, TASKS


@pytest.mark.parametrize("name", task_names())
def test_every_task_has_settings_figures_and_words(name: str) -> None:
    assert find_task_settings(name)().figures
    assert find_task_settings(name).parts[-1] == "test"
    assert callable(get_task(name).run)
    assert name in TASKS
    assert name in DESCRIPTIONS


@pytest.mark.parametrize("name", ["liner", "linear.legacy", "train_head", "", "x" * 10_000])
def test_an_unknown_task_is_refused_and_imports_nothing(name: str) -> None:
    for find in (find_task_settings, get_task):
        with pytest.raises(UserError, match=r"there is no task .* There are detection, ") as caught:
            find(name)
        assert len(str(caught.value)) < 600


def test_the_nearest_name_is_given() -> None:
    with pytest.raises(UserError, match=re.escape("there is no task zero-shot. Did you mean zero_shot?")):
        find_task_settings("zero-shot")


def test_settings_without_figures_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="abstract"):
        TaskSettings()  # type: ignore[abstract]
