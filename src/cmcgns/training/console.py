"""What a person sees while a run goes on."""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_TERMS = ("loss", "global", "image", "report", "reconstruction")


class RunConsole:
    """A progress bar per stage on a terminal, a line per epoch elsewhere.

    Args:
        quiet: print nothing.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(quiet=quiet, highlight=False)
        self._bar: Progress | None = None
        self._task: Any = None
        self._clock = time.perf_counter()
        self._pairs = 0
        self.pairs_per_second = 0.0

    def start_stage(self, name: str, total: int, done: int) -> None:
        """Open the bar of a stage."""
        self.end_stage()
        self._clock, self._pairs = time.perf_counter(), 0
        if not self.console.is_terminal:
            self.console.print(f"{name}: {total - done} steps")
            return
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self.console,
        )
        self._bar.start()
        self._task = self._bar.add_task(name, total=total, completed=done, figures="")

    def step(self, pairs: int, figures: dict[str, float] | None) -> None:
        """One step is done; figures come only when they were read from the device."""
        self._pairs += pairs
        if figures is not None:
            now = time.perf_counter()
            self.pairs_per_second = self._pairs / max(now - self._clock, 1e-9)
            self._clock, self._pairs = now, 0
        if self._bar is None:
            return
        if figures is None:
            self._bar.update(self._task, advance=1)
            return
        terms = "  ".join(f"{name} {figures[name]:.3f}" for name in _TERMS if name in figures)
        self._bar.update(self._task, advance=1, figures=f"{terms}  {self.pairs_per_second:.0f} pairs/s")

    def restart_clock(self) -> None:
        """Leave validation and saving out of the throughput."""
        self._clock, self._pairs = time.perf_counter(), 0

    def epoch(self, stage: str, epoch: int, epochs: int, figures: dict[str, float]) -> None:
        """Validation of an epoch."""
        terms = "  ".join(f"{name} {figures[name]:.3f}" for name in _TERMS if name in figures)
        recall = figures.get("report_to_image_r10", float("nan"))
        self.console.print(
            f"{stage} epoch {epoch}/{epochs}  validation: {terms}  report→image R@10 {recall:.3f}"
            f"  [{self.pairs_per_second:.0f} pairs/s]"
        )

    def say(self, message: str) -> None:
        """A line of its own."""
        self.console.print(message)

    def end_stage(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
