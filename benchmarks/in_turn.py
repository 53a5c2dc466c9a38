"""Two computations timed in turn, so that a noisy machine slows both."""

import statistics
import time
from collections.abc import Callable

Step = Callable[[], object]


def time_in_turn(ours: Step, other: Step, repeats: int, warm_up: int) -> str:
    """Run both in turn: median milliseconds of each, and the median of the ratios with their range."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats + warm_up):
        for step, taken in zip((ours, other), times, strict=True):
            start = time.perf_counter()
            step()
            if turn >= warm_up:
                taken.append(1e3 * (time.perf_counter() - start))
    ratios = [first / second for first, second in zip(*times, strict=True)]
    first, second = (statistics.median(each) for each in times)
    ratio, low, high = statistics.median(ratios), min(ratios), max(ratios)
    return f"{first:.0f} ms beside {second:.0f} ms, ratio {ratio:.2f} ({low:.2f} to {high:.2f})"
