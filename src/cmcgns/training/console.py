"""What a person sees while a run goes on."""

import time
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

_TERMS = ("loss", "global", "image", "report", "reconstruction")


class RunConsole:
    """On a terminal a progress bar per stage over a line with the loss terms; elsewhere a line per epoch.

    Args:
        quiet: print nothing.
        console: for tests; standard output by default.
    """

    def __init__(self, quiet: bool = False, console: Console | None = None) -> None:
        self.console = console or Console(quiet=quiet, highlight=False)
        self._live: Live | None = None
        self._bar: Bars | None = None
        self._terms = Text(no_wrap=True, overflow="ellipsis")
        self._task: Any = None
        self._clock = time.perf_counter()
        self._pairs = 0
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
            self._clock, self._pairs = now, 0
        if self._bar is None:
            return
        if figures is None:
            self._bar.update(self._task, advance=1)
            return
        self._terms.plain = terms(figures)
        self._bar.update(self._task, advance=1, speed=f"{self.pairs_per_second:.0f} pairs/s")

    def restart_clock(self) -> None:
        """Leave validation and saving out of the throughput."""
        self._clock, self._pairs = time.perf_counter(), 0

    def epoch(self, stage: str, epoch: int, epochs: int, figures: dict[str, float]) -> None:
        """Validation of an epoch."""
        recall = figures.get("report_to_image_r10", float("nan"))
        self.say(
            f"{stage} epoch {epoch}/{epochs}  validation: {terms(figures)}  report→image R@10 {recall:.3f}"
            f"  [{self.pairs_per_second:.0f} pairs/s]"
        )

    def say(self, message: str) -> None:
        """A line of its own; the terminal wraps it, a file does not."""
        self.console.print(message, soft_wrap=True, markup=False)

    def end_stage(self) -> None:
        """Close the bar."""
        if self._live is not None:
            self._live.stop()
            self._live = self._bar = None


def terms(figures: dict[str, float]) -> str:
    """The loss and its terms in one line of less than 80 characters."""
    return "  ".join(f"{name} {figures[name]:.3f}" for name in _TERMS if name in figures)
