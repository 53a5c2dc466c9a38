"""Where the figures of a run go: metrics.jsonl, TensorBoard, the console."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cmcgns.objectives.cmcgns import Stage
from cmcgns.training.checkpoint import Progress
from cmcgns.training.console import RunConsole
from cmcgns.training.metrics_log import MetricsLog
from cmcgns.training.run_folder import RunFolder


@dataclass
class Journal:
    """Writes everything at the step where the run stands.

    Attributes:
        console: the log that is looked at.
        progress: where the run stands.
        metrics: the log that survives, or None on other ranks than the first.
        board: TensorBoard writer, or None on other ranks than the first.
    """

    console: RunConsole
    progress: Progress
    metrics: MetricsLog | None = None
    board: Any = None

    def train(self, stage: Stage, figures: dict[str, float]) -> None:
        """Figures of a training step, and how fast the steps are."""
        self._record("train", stage, figures)
        if self.board is not None:
            self.board.add_scalar("speed/pairs_per_second", self.console.pairs_per_second, self.progress.global_step)

    def validation(self, stage: Stage, figures: dict[str, float], epochs: int) -> None:
        """Figures of an epoch out of `epochs`."""
        self._record("validation", stage, figures)
        self.console.epoch(stage, self.progress.epoch, epochs, figures)

    def event(self, stage: Stage, message: str) -> None:
        """Something that a reader of the curves should know."""
        if self.metrics is not None:
            self.metrics.write("event", stage=stage, step=self.progress.global_step, message=message)
            self.console.say(f"step {self.progress.global_step}: {message}")

    def sync(self) -> None:
        """Bring the metrics to the disk and note their length in the progress."""
        if self.metrics is not None:
            self.progress.metrics_bytes = self.metrics.sync()

    def _record(self, kind: str, stage: Stage, figures: dict[str, float]) -> None:
        if self.metrics is None:
            return
        progress = self.progress
        values = {name: float(f"{value:.7g}") for name, value in figures.items()}
        self.metrics.write(kind, stage=stage, epoch=progress.epoch, step=progress.global_step, **values)
        if self.board is not None:
            for name, value in figures.items():
                self.board.add_scalar(f"{kind}/{name}", value, progress.global_step)


@contextmanager
def open_journal(folder: RunFolder, console: RunConsole, progress: Progress, first: bool) -> Iterator[Journal]:
    """A journal whose files are closed at the end.

    Args:
        folder: where metrics and TensorBoard files lie; what is younger than the progress is cut off.
        console: may be quiet.
        progress: where the run starts.
        first: whether this is the first rank, the only one that writes files.
    """
    journal = Journal(console, progress)
    try:
        if first:
            from torch.utils.tensorboard import SummaryWriter

            journal.metrics = MetricsLog(folder.metrics, progress.metrics_bytes)
            purge = progress.global_step + 1 if progress.global_step else None
            journal.board = SummaryWriter(str(folder.tensorboard), purge_step=purge)
        yield journal
    finally:
        for log in (journal.metrics, journal.board):
            if log is not None:
                log.close()
