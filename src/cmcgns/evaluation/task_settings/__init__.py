"""What a protocol may set for each task; the defaults are those of v1."""

from cmcgns.evaluation.task_settings.base import TaskSettings, find_task_settings, task_names

__all__ = ["TaskSettings", "find_task_settings", "task_names"]
