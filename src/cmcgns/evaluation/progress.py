"""What a user sees while an evaluation runs."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from cmcgns.evaluation.protocols import Cell


class Progress:
    """One line a protocol: a bar over its cells, and what the task is doing.

    Args:
        console: where to write.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[doing]}"))
        self.bars = Bars(*columns, TimeElapsedColumn(), console=console, transient=True)
        self._bars: dict[str, TaskID] = {}
        self._started: dict[str, float] = {}

    def __enter__(self) -> Progress:
        """Start to draw."""
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop drawing."""
        self.bars.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, markup=False, highlight=False)

    def begin(self, name: str, cells: int) -> None:
        """A protocol starts."""
        self._started[name] = time.perf_counter()
        self._bars[name] = self.bars.add_task(name, total=cells, doing="leakage guard")

    def found(self, name: str, cells: int) -> None:
        """So many cells are there from earlier calls."""
        self.bars.update(self._bars[name], completed=cells, doing="")

    def step(self, name: str, text: str, share: float) -> None:
        """The task says what it is doing."""
        self.bars.update(self._bars[name], doing=f"{text} {share:.0%}")

    def cell_done(self, name: str, cell: Cell) -> None:
        """A cell was kept."""
        self.bars.update(self._bars[name], advance=1, doing=cell.name)

    def clear(self) -> None:
        """Whatever was going on is over."""
        for bar in self._bars.values():
            self.bars.remove_task(bar)
        self._bars.clear()

    def end(self, name: str) -> None:
        """A protocol is finished."""
        self.bars.remove_task(self._bars.pop(name))
        self.say(f"{name}: {time.perf_counter() - self._started[name]:.1f} s")
