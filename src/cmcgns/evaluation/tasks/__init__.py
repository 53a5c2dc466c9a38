"""The kinds of evaluation, by the name that a protocol gives."""

from importlib import import_module

from cmcgns.evaluation.contract import Task

_TASKS = {
    "linear": "cmcgns.evaluation.tasks.linear.task",
    "knn": "cmcgns.evaluation.tasks.knn",
    "detection": "cmcgns.evaluation.tasks.detection.task",
    "segmentation": "cmcgns.evaluation.tasks.segmentation.task",
    "patch_probe": "cmcgns.evaluation.tasks.patch_probe",
    "zero_shot": "cmcgns.evaluation.tasks.zero_shot",
    "retrieval": "cmcgns.evaluation.tasks.retrieval",
    "grounding": "cmcgns.evaluation.tasks.grounding",
    "presence": "cmcgns.evaluation.tasks.presence",
    "sides": "cmcgns.evaluation.tasks.sides",
    "zero_shot_segmentation": "cmcgns.evaluation.tasks.zero_shot_segmentation",
}


def get_task(name: str) -> Task:
    """The task of a protocol; its libraries are imported now."""
    task: Task = import_module(_TASKS[name]).TASK
    return task
