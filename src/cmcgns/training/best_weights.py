"""The best weights of Stage I: kept while it trains, handed over to Stage II."""

from pathlib import Path

from cmcgns.errors import UserError
from cmcgns.task import Task
from cmcgns.training.checkpoint import Progress, load_weights, save_weights
from cmcgns.training.run_folder import RunFolder


def best_file(folder: RunFolder) -> Path:
    """Where the best weights of Stage I are."""
    return folder.state / "best-alignment.safetensors"


def keep_best(folder: RunFolder, task: Task, progress: Progress, figures: dict[str, float]) -> None:
    """Save the weights if no epoch before has validated better.

    Args:
        folder: of the run.
        task: model and objective after the epoch.
        progress: remembers the best value so far.
        figures: of the validation. `global` decides: the total jumps when the bank starts, so it cannot rank epochs.
    """
    value = figures.get("global", -float(progress.epoch))
    if value <= progress.best.get("global", float("inf")):  # of equal ones, such as all 0, the last
        progress.best = {"global": value, "epoch": progress.epoch}
        save_weights(best_file(folder), task, about=progress.best)


def hand_over(folder: RunFolder, task: Task) -> str:
    """Load the best weights of Stage I into the task; a sentence for the log.

    Raises:
        UserError: they are missing.
    """
    file = best_file(folder)
    if not file.is_file():
        raise UserError(f"{file}: the best Stage I weights are missing; start again in another folder")
    had_started = task.objective.bank.is_started
    best = load_weights(file, task)
    message = f"weights of alignment epoch {best['epoch']} taken over"
    if had_started and not task.objective.bank.is_started:
        message += ": they are older than the cluster bank's start, so it starts anew"
    return message
