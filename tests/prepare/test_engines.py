"""Every engine does the same work, and all of it."""

import math

import pytest

from cmcgns.common.errors import UserError
from cmcgns.prepare.engines import run_tasks


def square(number: int) -> int:
    return number * number


@pytest.mark.parametrize(("count", "workers"), [(0, 1), (5, 1), (100, 1), (100, 2), (5, 2)])
def test_all_tasks_are_done_once(count, workers):
    found = list(run_tasks(square, range(count), "pool", workers))
    assert sorted(found) == [number**2 for number in range(count)]


def test_ray_is_named_where_it_is_missing():
    try:
        import ray  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match=r"pip install 'cmcgns\[ray\]'"):
            list(run_tasks(square, range(3), "ray"))
    else:
        pytest.skip("Ray is installed")


@pytest.mark.slow
def test_ray_does_the_same_work():
    ray = pytest.importorskip("ray")
    try:  # a function that a worker can import: this file is not on its path
        assert sorted(run_tasks(math.factorial, range(40), "ray")) == [math.factorial(number) for number in range(40)]
    finally:
        ray.shutdown()
