"""Balanced epochs and even batches."""

import numpy as np
import pytest

from cmcgns.evaluation.tasks.segmentation.train import epoch_rows, equal_batches

ROWS = np.arange(10, 110)
POSITIVE = np.arange(200) % 10 == 0  # 10 of the 100 rows


@pytest.mark.parametrize("balance", ["each_epoch", "once"])
def test_as_many_with_a_mask_as_without(balance):
    for epoch in range(5):
        rows = epoch_rows(ROWS, POSITIVE, balance, 0, epoch)
        assert len(rows) == len(set(rows)) == 20
        assert set(rows) <= set(ROWS)
        assert set(rows[POSITIVE[rows]]) == set(ROWS[POSITIVE[ROWS]])


def test_images_without_a_mask_change_each_epoch_or_never():
    def empty(balance, epoch):
        rows = epoch_rows(ROWS, POSITIVE, balance, 0, epoch)
        return set(rows[~POSITIVE[rows]])

    assert empty("once", 0) == empty("once", 1)
    assert len(empty("each_epoch", 0) & empty("each_epoch", 1)) < 6
    assert len(set.union(*(empty("each_epoch", epoch) for epoch in range(60)))) == 90


def test_all_rows_where_nothing_is_balanced_or_too_few_are_empty():
    assert set(epoch_rows(ROWS, POSITIVE, "none", 0, 0)) == set(ROWS)
    assert set(epoch_rows(ROWS, ~POSITIVE, "each_epoch", 0, 0)) == set(ROWS)  # 90 with a mask, 10 without
    assert set(epoch_rows(ROWS, np.ones(200, bool), "once", 0, 0)) == set(ROWS)


@pytest.mark.parametrize("balance", ["each_epoch", "once", "none"])
def test_few_images_are_shown_in_whole_passes_until_the_epoch_is_long_enough(balance):
    length = 100 if balance == "none" else 20
    rows = epoch_rows(ROWS, POSITIVE, balance, 0, 3, at_least=241)
    assert len(rows) == (300 if balance == "none" else 260)
    passes = rows.reshape(-1, length)
    assert all(len(set(some)) == length for some in passes)
    assert all((POSITIVE[some]).sum() == 10 for some in passes)
    assert not np.array_equal(passes[0], passes[1])
    drawn = [frozenset(some[~POSITIVE[some]]) for some in passes]
    assert (len(set(drawn)) == 1) == (balance != "each_epoch")
    following = epoch_rows(ROWS, POSITIVE, balance, 0, 4, at_least=241)
    assert not any(np.array_equal(some, passes[0]) for some in following.reshape(-1, length))
    assert len(epoch_rows(ROWS, POSITIVE, balance, 0, 3, at_least=length)) == length


def test_order_depends_on_seed_and_epoch_alone():
    first = epoch_rows(ROWS, POSITIVE, "each_epoch", 3, 2)
    assert np.array_equal(first, epoch_rows(ROWS, POSITIVE, "each_epoch", 3, 2))
    assert not np.array_equal(first, epoch_rows(ROWS, POSITIVE, "each_epoch", 3, 3))
    assert not np.array_equal(first, epoch_rows(ROWS, POSITIVE, "each_epoch", 4, 2))


@pytest.mark.parametrize(("rows", "sizes"), [(33, [11, 11, 11]), (16, [16]), (17, [9, 8]), (1, [1])])
def test_batches_differ_by_one_at_most_and_lose_nothing(rows, sizes):
    found = equal_batches(np.arange(rows), 16)
    assert [len(each) for each in found] == sizes
    assert np.array_equal(np.concatenate(found), np.arange(rows))
