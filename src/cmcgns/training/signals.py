"""SIGTERM and SIGINT ask the loop to save and leave."""

import signal
from types import FrameType, TracebackType
from typing import Any

import torch


class Interruption:
    """Remembers the first signal; a second one acts at once.

    Attributes:
        caught: number of the signal, 0 before any.
    """

    def __init__(self) -> None:
        self.caught = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self._before[number] = signal.signal(number, self._remember)
            except ValueError:  # not the main thread: the caller handles signals
                break
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def agreed(self, fabric: Any, together: bool) -> int:
        """The signal that was caught, 0 for none.

        Ranks have to agree, or one would wait for the others for ever; they can only when they come `together`.
        """
        if fabric.world_size == 1:
            return self.caught
        if not together:
            return 0
        return int(fabric.all_reduce(torch.tensor(self.caught, device=fabric.device), reduce_op="max"))

    def _remember(self, number: int, _: FrameType | None) -> None:
        if self.caught:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.caught = number


class Interrupted(Exception):
    """The run was asked to stop, saved its state and can be resumed.

    Attributes:
        signal_number: what asked.
    """

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.signal_number = signal_number
