"""The order of studies is a pure function of seed, epoch, step and rank."""

from itertools import chain

import numpy as np
import pytest

from cmcgns.common.errors import UserError
from cmcgns.data.pairs.batch import TrainingOrder, evaluation_order, mix, steps_per_epoch


def batches(*arguments, **options):
    return [request.rows.tolist() for request in TrainingOrder(*arguments, **options)]


def test_mix_is_known_on_every_machine():
    assert mix(0) == 7896617691693857887
    assert mix(1, 2, 3) == 6498626229777268288


def test_mix_separates_neighbours_and_the_order_of_its_numbers():
    numbers = {mix(seed, stage, epoch) for seed in range(10) for stage in range(2) for epoch in range(50)}
    assert len(numbers) == 1000
    assert mix(1, 2) != mix(2, 1)
    assert all(0 <= number < 2**63 for number in numbers)


@pytest.mark.parametrize(("studies", "size", "ranks"), [(20, 4, 1), (23, 4, 1), (23, 2, 2), (24, 2, 3), (5, 5, 1)])
def test_every_study_comes_at_most_once_in_an_epoch(studies, size, ranks):
    seen = [
        row for rank in range(ranks) for batch in batches(studies, size, 7, rank=rank, ranks=ranks) for row in batch
    ]
    assert len(seen) == len(set(seen)) == studies // (size * ranks) * size * ranks
    assert set(seen) <= set(range(studies))


def test_the_remainder_changes_from_epoch_to_epoch():
    left = [set(range(23)) - {row for batch in batches(23, 4, mix(0, epoch)) for row in batch} for epoch in range(30)]
    assert {len(rest) for rest in left} == {3}
    assert set.union(*left) == set(range(23))


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_pitfall_10_ranks_partition_the_batch_of_one_rank(ranks):
    whole = batches(100, 3 * ranks, 7)
    parts = [batches(100, 3, 7, rank=rank, ranks=ranks) for rank in range(ranks)]
    assert [list(chain(*step)) for step in zip(*parts, strict=True)] == whole


def test_resuming_gives_the_tail():
    whole = list(TrainingOrder(50, 4, 7))
    for start in (0, 5, 11, 12):
        order = TrainingOrder(50, 4, 7, start=start)
        tail = list(order)
        assert len(order) == len(tail) == 12 - start
        assert all((a.rows == b.rows).all() for a, b in zip(tail, whole[start:], strict=True))
        assert {request.epoch_seed for request in tail} <= {7}


def test_epochs_differ_and_repeat_by_seed():
    assert batches(50, 4, mix(0, 0, 0)) != batches(50, 4, mix(0, 0, 1))
    assert batches(50, 4, 7) == batches(50, 4, 7)
    assert list(chain(*batches(64, 8, 7))) != list(range(64))


def test_too_few_studies_say_what_to_set():
    assert steps_per_epoch(8, 4, 2) == 1
    for studies, size, ranks, batch, most in ((7, 4, 2, "2 x 4", 3), (3, 4, 2, "2 x 4", 1), (3, 16, 1, "16", 3)):
        said = (
            rf"studies: {studies}, which do not fill one batch of {batch}: set training\.batch_size={most}, or give"
        )
        with pytest.raises(UserError, match=said):
            steps_per_epoch(studies, size, ranks)
        assert steps_per_epoch(studies, most, ranks) == 1
    with pytest.raises(UserError, match="usable training studies: 1, fewer than 2 ranks; start at most 1"):
        steps_per_epoch(1, 4, 2)


def test_pitfall_evaluation_the_last_batch_is_kept():
    requests = evaluation_order(10, 4)
    assert [len(request.rows) for request in requests] == [4, 4, 2]
    assert np.concatenate([request.rows for request in requests]).tolist() == list(range(10))
    assert {request.epoch_seed for request in requests} == {None}
