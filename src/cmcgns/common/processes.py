"""Work on several cores: threads where the interpreter lock is let go, worker processes elsewhere; and how it stops.

Whatever ends a process, its children end with it, and a signal that asks it to stop becomes an exception.
"""

import ctypes
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, connection, get_context, parent_process
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, TypeVar

from cmcgns.common.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")
_AHEAD = 16  # items a thread that are handed out before their turn
_ASKING = (signal.SIGINT, signal.SIGTERM)
_PR_SET_PDEATHSIG = 1  # of Linux' prctl
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def in_threads(
    work: Callable[[Item], Result], items: Iterable[Item], progress: Callable[[int], None] | None = None
) -> list[Result]:
    """Results of many items, in their order, by as many threads as there are cores.

    Decoding (Pillow), hashing and numpy's large operations let go of the interpreter lock.

    Args:
        work: called with each item; what it raises ends the whole.
        items: in their order.
        progress: called with 1 after each item.
    """
    results: list[Result] = []
    under_way: deque[Future[Result]] = deque()  # some of them: a future takes as much memory as many a result

    def take() -> None:
        results.append(under_way.popleft().result())
        if progress:
            progress(1)

    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                if len(under_way) == _AHEAD * threads:
                    take()
                under_way.append(pool.submit(work, item))
            while under_way:
                take()
        finally:
            for each in under_way:
                each.cancel()
    return results


class Stopped(BaseException):
    """A signal asked the process to stop."""

    def __init__(self, signal_number: int, message: str = "") -> None:
        super().__init__(message or f"stopped by {signal.Signals(signal_number).name}")
        self.signal_number = signal_number


@contextmanager
def handling_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """A block in which Ctrl-C and SIGTERM call a handler; outside the main thread they stay the caller's."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in _ASKING}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextmanager
def stopping_at_signals() -> Iterator[None]:
    """A block in which Ctrl-C and SIGTERM raise; a second one ends the process at once.

    Raises:
        Stopped: where the block stood when the signal came.
    """

    def stop(number: int, _: FrameType | None) -> None:
        for each in _ASKING:
            signal.signal(each, signal.SIG_DFL)
        raise Stopped(number)

    with handling_signals(stop):
        yield


def end_with_parent(parent: int) -> None:
    """Have the system end this forked process when its parent ends (Linux; elsewhere it goes on to its own end)."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before
            os._exit(1)


def end_after_parent(parent: int, seconds: float) -> None:
    """Have this process end some time after its parent, which it may say before, whatever it waits for then."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="end after parent", daemon=True).start()


class _Pool(ProcessPoolExecutor):
    """Worker processes that leave Ctrl-C, which reaches all of a terminal's processes, to their parent."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers, mp_context=get_context("spawn"), initializer=_begin_as_worker)
        self.others, self.born = set(active_children()), set[BaseProcess]()

    def submit(self, *args: Any, **options: Any) -> Future[Any]:
        # Processes are born here, with the parent's mask: a signal before they begin would make a traceback.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _ASKING)
        try:
            future = super().submit(*args, **options)
            self.born |= set(active_children()) - self.others
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        return future


def _begin_as_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKING)
    threading.Thread(target=_end_after_parent, daemon=True).start()


def _end_after_parent() -> None:
    """A worker waits for tasks on a pipe that it holds open itself: without this it would wait for ever."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


@contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of spawned processes, each with one thread for its matrix products unless the user says otherwise.

    With as many threads as cores in every process they wait for each other: on two cores two processes then took
    four times as long over synthetic studies. The libraries read the variables once, when they are loaded, so the
    processes have to be born with them.

    Raises:
        UserError: a worker was killed; says which and by what.
    """
    added = [name for name in THREADS if name not in os.environ]
    os.environ.update(dict.fromkeys(added, "1"))
    pool = _Pool(workers)
    try:
        with pool:
            yield pool
    except BrokenProcessPool as error:
        raise UserError(
            f"{_who_was_killed(pool.born)}: what is finished is kept, give the same command again"
        ) from error
    finally:
        for name in added:
            os.environ.pop(name, None)


def _who_was_killed(workers: Iterable[BaseProcess]) -> str:
    """The worker that ended first; the pool then ends the others by SIGTERM."""
    ends = {worker: worker.exitcode for worker in workers if worker.exitcode}
    worker = min(ends, key=lambda each: ends[each] == -signal.SIGTERM, default=None)
    if worker is None:
        return "a worker process was ended"
    code = ends[worker] or 0
    how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"gone with status {code}"
    hint = " (the system does so for want of memory; fewer --workers need less)" if code == -signal.SIGKILL else ""
    return f"worker process {worker.pid} was {how}{hint}"
