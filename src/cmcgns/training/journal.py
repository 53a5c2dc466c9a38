"""Where the figures of a run go: metrics.jsonl, TensorBoard, the console."""

import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text
from torch import Tensor

from cmcgns.common.stored import read_json_lines
from cmcgns.objectives.objective import Stage
from cmcgns.training.checkpoint import TrainingState
from cmcgns.training.run_folder import RunFolder

logger = logging.getLogger(__name__)


class MetricsLog:
    """Appends records; holds nothing that depends on the clock, so that equal runs write equal files.

    Args:
        path: metrics.jsonl.
        length: bytes to keep of an existing file; where it is damaged, only the whole lines among them are kept.
    """

    def __init__(self, path: Path, length: int = 0) -> None:
        path.touch()
        with path.open("rb") as file:
            kept = file.read(length)
        whole = kept.rfind(b"\n") + 1
        if whole != length:
            logger.warning("%s: %d bytes of what the run has logged are lost", path, length - whole)
        os.truncate(path, whole)
        self._file = path.open("a", encoding="utf-8")

    def write(self, kind: str, **values: Any) -> None:
        """Append one record of a kind (`train`, `validation`, `clusters`, `event`)."""
        self._file.write(json.dumps({"kind": kind} | values) + "\n")
        self._file.flush()

    def sync(self) -> int:
        """Bring everything to the disk; returns the length in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Close the file; what it could not write has been said already."""
        with suppress(OSError):
            self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All records of a run."""
    return read_json_lines(path, "put it back from a copy; or take it away, and there are no curves")


class RunConsole:
    """On a terminal a progress bar per stage over a line with the loss terms; elsewhere a line per epoch.

    Args:
        quiet: print nothing.
        console: for tests; standard output by default.

    Attributes:
        terms: names of the figures that it shows: the losses of the objective.
    """

    terms: Sequence[str] = ("loss",)

    def __init__(self, quiet: bool = False, console: Console | None = None) -> None:
        self.console = console or Console(quiet=quiet, highlight=False)
        self._live: Live | None = None
        self._bar: Bars | None = None
        self._terms = Text(no_wrap=True, overflow="ellipsis")
        self._task: Any = None
        self._clock = time.perf_counter()
        self._pairs = 0
        self._read = False  # whether figures were read since the clock was restarted
        self.pairs_per_second = 0.0

    def start_stage(self, name: str, total: int, done: int) -> None:
        """Open the bar of a stage."""
        self.end_stage()
        self.restart_clock()
        if not self.console.is_terminal:
            self.say(f"{name}: {total - done} steps")
            return
        self._bar = Bars(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
        )
        self._task = self._bar.add_task(name, total=total, completed=done, speed="")
        self._terms.plain = ""
        self._live = Live(Group(self._bar, self._terms), console=self.console, refresh_per_second=4)
        self._live.start()

    def step(self, pairs: int, figures: dict[str, float] | None) -> None:
        """One step is done; figures come only when they were read from the device."""
        self._pairs += pairs
        if figures is not None:
            now = time.perf_counter()
            self.pairs_per_second = self._pairs / max(now - self._clock, 1e-9)
            self._clock, self._pairs, self._read = now, 0, True
        if self._bar is None:
            return
        self._bar.advance(self._task)
        if figures is not None:
            self._terms.plain = self._losses(figures)
            self._bar.update(self._task, speed=f"{self.pairs_per_second:.0f} pairs/s")

    def restart_clock(self) -> None:
        """Leave validation and saving out of the throughput."""
        self._clock, self._pairs, self._read = time.perf_counter(), 0, False

    def stop_clock(self) -> None:
        """Take the throughput of an epoch that was too short for any figures to be read; its steps are done."""
        if self._pairs and not self._read:
            self.pairs_per_second = self._pairs / max(time.perf_counter() - self._clock, 1e-9)

    def epoch(self, stage: str, epoch: int, epochs: int, figures: dict[str, float]) -> None:
        """Validation of an epoch."""
        found = figures.get("report_to_image_r10")
        recall = "" if found is None else f"  report→image R@10 {found:.3f}"
        self.say(
            f"{stage} epoch {epoch}/{epochs}  validation: {self._losses(figures)}{recall}"
            f"  [{self.pairs_per_second:.0f} pairs/s]"
        )

    def say(self, message: str) -> None:
        """A line of its own; the terminal wraps it, a file does not."""
        self.console.print(message, soft_wrap=True, markup=False)

    def _losses(self, figures: dict[str, float]) -> str:
        return "  ".join(f"{name} {figures[name]:.3f}" for name in self.terms if name in figures)

    def end_stage(self) -> None:
        """Close the bar."""
        if self._live is not None:
            self._live.stop()
            self._live = self._bar = None


@dataclass
class Journal:
    """Writes everything at the step where the run stands.

    Attributes:
        console: the log that is looked at.
        state: where the run stands.
        metrics: the log that survives, or None on other ranks than the first.
        board: TensorBoard writer, or None on other ranks than the first.
    """

    console: RunConsole
    state: TrainingState
    metrics: MetricsLog | None = None
    board: Any = None

    def train(self, stage: Stage, figures: dict[str, float]) -> None:
        """Figures of a training step, and how fast the steps are."""
        self._record("train", stage, figures)
        if self.board is not None:
            self.board.add_scalar("speed/pairs_per_second", self.console.pairs_per_second, self.state.global_step)

    def validation(self, stage: Stage, figures: dict[str, float], epochs: int) -> None:
        """Figures of an epoch out of `epochs`."""
        self._record("validation", stage, figures)
        self.console.epoch(stage, self.state.epoch, epochs, figures)

    def clusters(self, stage: Stage, shares: Tensor | None) -> None:
        """(K,) shares of the clusters after an epoch; nothing where there are none."""
        if self.metrics is not None and shares is not None:
            state, rounded = self.state, [float(f"{share:.4g}") for share in shares.tolist()]
            self.metrics.write("clusters", stage=stage, epoch=state.epoch, step=state.global_step, shares=rounded)

    def event(self, stage: Stage, message: str) -> None:
        """Something that a reader of the curves should know."""
        if self.metrics is not None:
            self.metrics.write("event", stage=stage, step=self.state.global_step, message=message)
            self.console.say(f"step {self.state.global_step}: {message}")

    def sync(self) -> None:
        """Bring the metrics to the disk and note their length in the state."""
        if self.metrics is not None:
            self.state.metrics_bytes = self.metrics.sync()

    def _record(self, kind: str, stage: Stage, figures: dict[str, float]) -> None:
        if self.metrics is None:
            return
        state = self.state
        values = {name: float(f"{value:.7g}") for name, value in figures.items()}
        self.metrics.write(kind, stage=stage, epoch=state.epoch, step=state.global_step, **values)
        if self.board is not None:
            for name, value in figures.items():
                self.board.add_scalar(f"{kind}/{name}", value, state.global_step)


@contextmanager
def open_journal(folder: RunFolder, console: RunConsole, state: TrainingState, first: bool) -> Iterator[Journal]:
    """A journal whose files are closed at the end."""
    journal = Journal(console, state)
    try:
        if first:
            from torch.utils.tensorboard import SummaryWriter

            journal.metrics = MetricsLog(folder.metrics, state.metrics_bytes)
            purge = state.global_step + 1 if state.global_step else None
            journal.board = SummaryWriter(str(folder.tensorboard), purge_step=purge)
        yield journal
    finally:
        for log in (journal.metrics, journal.board):
            if log is not None:
                log.close()
