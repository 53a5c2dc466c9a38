"""Where the work is done: in this process, in a pool of processes, or on a Ray cluster. The work is the same."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from itertools import islice
from typing import Any, Literal, TypeVar

from cmcgns.common.errors import UserError
from cmcgns.common.processes import worker_pool

Engine = Literal["pool", "ray"]
Task = TypeVar("Task")
Result = TypeVar("Result")

_CHUNK = 16


def run_tasks(
    function: Callable[[Task], Result], tasks: Sequence[Task], engine: Engine = "pool", workers: int = 1
) -> Iterator[Result]:
    """Results of all tasks, in the order in which they come.

    Args:
        function: picklable.
        tasks: picklable.
        engine: `pool` (one process: no pool at all) or `ray`.
        workers: processes of the pool; Ray uses what the cluster has.

    Raises:
        UserError: Ray is asked for and not installed.
    """
    chunks = [tasks[start : start + _CHUNK] for start in range(0, len(tasks), _CHUNK)]
    run = partial(_run_chunk, function)
    if engine == "ray":
        parts = _on_ray(function, chunks)
    elif workers == 1 or len(chunks) <= 1:
        parts = map(run, chunks)
    else:
        parts = _in_pool(run, chunks, workers)
    for part in parts:
        yield from part


def _run_chunk(function: Callable[[Any], Any], chunk: Sequence[Any]) -> list[Any]:
    return [function(task) for task in chunk]


def _in_pool(run: Callable[[Any], list[Any]], chunks: Sequence[Any], workers: int) -> Iterator[list[Any]]:
    # A bounded number of chunks is under way, so that memory does not grow with the number of rows.
    waiting = iter(chunks)
    with worker_pool(workers) as pool:
        running: set[Future[list[Any]]] = {pool.submit(run, chunk) for chunk in islice(waiting, 4 * workers)}
        try:
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                running |= {pool.submit(run, chunk) for chunk in islice(waiting, len(done))}
                for future in done:
                    yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _on_ray(function: Callable[[Any], Any], chunks: Sequence[Any]) -> Iterator[list[Any]]:
    try:
        import ray
    except ImportError:
        raise UserError("--engine ray needs Ray: pip install 'cmcgns[ray]'") from None
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    remote = ray.remote(_run_chunk)
    shared = ray.put(function)  # sent to each machine once
    waiting = iter(chunks)
    ahead = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    running = [remote.remote(shared, chunk) for chunk in islice(waiting, ahead)]
    while running:
        done, running = ray.wait(running)
        running += [remote.remote(shared, chunk) for chunk in islice(waiting, len(done))]
        yield from ray.get(done)
