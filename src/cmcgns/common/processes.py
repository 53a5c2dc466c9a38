"""Work on several cores: threads where the interpreter lock is let go, worker processes elsewhere."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
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
    results = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for result in pool.map(work, items):
            results.append(result)
            if progress:
                progress(1)
    return results


@contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of spawned processes, each with one thread for its matrix products unless the user says otherwise.

    With as many threads as cores in every process they wait for each other: on two cores two processes then took
    four times as long over synthetic studies. The libraries read the variables once, when they are loaded, so the
    processes have to be born with them.

    Args:
        workers: number of processes.
    """
    added = [name for name in THREADS if name not in os.environ]
    os.environ.update(dict.fromkeys(added, "1"))
    try:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            yield pool
    finally:
        for name in added:
            os.environ.pop(name, None)
