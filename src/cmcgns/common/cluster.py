"""Work spread over a Ray cluster."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from cmcgns.common.errors import UserError, one_line


def on_ray(
    function: Callable[[Any], Any],
    items: Sequence[Any],
    gpu: bool = False,
    lost: Callable[[Any, str], Any] | None = None,
) -> Iterator[Any]:
    """Results in the order in which they come; a bounded number is under way, so that memory does not grow.

    Args:
        function: picklable.
        items: picklable; one is one task.
        gpu: a task takes a GPU, if the cluster has any.
        lost: result of an item whose process was killed, such as for want of memory, and what Ray says of it; None:
            that ends all.

    Raises:
        UserError: Ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--engine ray needs Ray: pip install 'cmcgns[ray]'") from None
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    there = ray.cluster_resources()
    needs = {"num_gpus": 1} if gpu and there.get("GPU", 0) else {}
    remote = ray.remote(_call).options(**needs)
    shared = ray.put(function)  # sent to each machine once
    waiting = iter(items)
    ahead = 2 * max(1, int(there.get("GPU" if needs else "CPU", 1)))
    running = {remote.remote(shared, item): item for item in islice(waiting, ahead)}
    while running:
        done, _ = ray.wait(list(running))
        found = [(reference, running.pop(reference)) for reference in done]
        running |= {remote.remote(shared, item): item for item in islice(waiting, len(done))}
        for reference, item in found:
            try:
                result = ray.get(reference)
            except ray.exceptions.RayTaskError:  # what the function itself raised
                raise
            except ray.exceptions.RayError as error:
                if lost is None:
                    raise
                result = lost(item, one_line(error))
            yield result


def _call(function: Callable[[Any], Any], item: Any) -> Any:
    return function(item)
