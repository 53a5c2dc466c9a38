"""The kinds of evaluation, by the name that a protocol gives: `NAME.py`, or `NAME/task.py`, holds a `TASK`."""

from importlib import import_module

from cmcgns.evaluation.contract import Task
from cmcgns.evaluation.task_settings import find_task_settings


def get_task(name: str) -> Task:
    """The task of a protocol; its libraries are imported now.

    Raises:
        UserError: no such task.
    """
    find_task_settings(name)  # what a file on disk calls a task is no path to import
    module = import_module(f"{__name__}.{name}")
    if hasattr(module, "__path__"):
        module = import_module(f"{module.__name__}.task")
    task: Task = module.TASK
    return task
