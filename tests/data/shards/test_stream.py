"""A streamed epoch: every study once at most, the same pictures as from files, resumable at any step."""

import logging
import pickle
import re

import numpy as np
import pytest
import torch

from cmcgns.common.errors import UserError
from cmcgns.data.images import read
from cmcgns.data.pairs.batch import BatchRequest, TrainingOrder
from cmcgns.data.pairs.loader import iterate_batches, make_loader
from cmcgns.data.shards.index import ShardFolder
from cmcgns.data.shards.stream import GROUP, ShardImages, StreamOrder, training_order
from cmcgns.data.shards.write import write_shards
from support.shards import STORED, array_of, images_of, pair_dataset, write_prepared

TRAIN, BATCH = 43, 4


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("data") / "prepared", {"train": TRAIN, "val": 9})


@pytest.fixture(scope="module")
def shards(prepared):
    write_shards(prepared, prepared.parent / "shards", per_shard=3)
    return prepared.parent / "shards"


@pytest.fixture
def streamed(shards):
    return pair_dataset(images_of(shards), shards)


def same(a, b):
    tensors = ("images", "token_ids", "token_mask", "token_sentence", "sentence_mask", "sentence_text", "report_text")
    return a.study_ids == b.study_ids and all(torch.equal(getattr(a, name), getattr(b, name)) for name in tensors)


@pytest.mark.parametrize("settings", [{}, {"affine": 0.1, "sentence_dropout": 0.5}, {"random_crop": False}])
def test_a_study_looks_as_it_does_from_files(prepared, shards, settings):
    ordinary = pair_dataset(array_of(prepared), prepared, **settings)
    streamed = pair_dataset(images_of(shards), shards, **settings)
    for seed in (None, 5, 6):
        request = BatchRequest(np.array([0, 7, TRAIN - 1, 20]), seed)
        assert same(ordinary[request], streamed[request])


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_every_study_comes_once_at_most_and_ranks_have_equal_steps(workers, ranks):
    shard_of_row = np.random.default_rng(0).integers(0, 9, 101)
    orders = [StreamOrder(shard_of_row, BATCH, 7, 0, rank, ranks, workers) for rank in range(ranks)]
    batches = [list(order) for order in orders]
    assert {len(each) for each in batches} == {len(order) for order in orders} == {101 // (BATCH * ranks)}
    rows = np.concatenate([request.rows for each in batches for request in each])
    assert {len(request.rows) for each in batches for request in each} == {BATCH}
    assert len(np.unique(rows)) == len(rows) == BATCH * ranks * (101 // (BATCH * ranks))
    assert {request.epoch_seed for each in batches for request in each} == {7}


def test_what_one_epoch_leaves_out_comes_in_another():
    shard_of_row = np.repeat(np.arange(5), 3)
    seen = [np.concatenate([each.rows for each in StreamOrder(shard_of_row, BATCH, seed)]) for seed in range(12)]
    assert all(len(rows) == 12 for rows in seen)
    assert set(np.concatenate(seen)) == set(range(15))
    assert len({tuple(rows) for rows in seen}) == 12


@pytest.mark.parametrize(("workers", "ranks"), [(0, 1), (2, 1), (2, 2)])
def test_a_worker_reads_each_of_its_shards_once_and_few_at_a_time(workers, ranks):
    shard_of_row = np.repeat(np.arange(60), 7)
    opened = []
    for rank in range(ranks):
        batches = list(StreamOrder(shard_of_row, 5, 3, 0, rank, ranks, workers))
        for worker in range(max(1, workers)):
            shards = shard_of_row[np.concatenate([batch.rows for batch in batches[worker :: max(1, workers)]])]
            opened += list(np.unique(shards))
            last = {shard: np.flatnonzero(shards == shard) for shard in np.unique(shards)}
            for place in range(len(shards)):
                assert sum(at[0] <= place <= at[-1] for at in last.values()) <= GROUP
    assert len(opened) <= 60 + max(1, workers) * ranks


def test_batches_mix_the_shards_of_a_group_and_the_rows_of_a_shard():
    shard_of_row = np.repeat(np.arange(8), 100)
    batches = [batch.rows for batch in StreamOrder(shard_of_row, 20, 1)]
    assert np.mean([len(np.unique(shard_of_row[rows])) for rows in batches]) > 3.5
    assert not any((np.diff(rows) > 0).all() for rows in batches)


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("ranks", [1, 2])
def test_resuming_gives_the_rest_of_the_epoch(workers, ranks):
    shard_of_row = np.random.default_rng(1).integers(0, 12, 90)
    for rank in range(ranks):
        whole = list(StreamOrder(shard_of_row, BATCH, 5, 0, rank, ranks, workers))
        for start in range(len(whole) + 1):
            rest = StreamOrder(shard_of_row, BATCH, 5, start, rank, ranks, workers)
            assert len(rest) == len(whole) - start
            assert [each.rows.tolist() for each in rest] == [each.rows.tolist() for each in whole[start:]]


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("rank", [0, 1])
def test_resumed_batches_are_the_same_in_every_bit(shards, workers, rank):
    data = pair_dataset(images_of(shards), shards, workers=workers)
    whole = list(make_loader(data, training_order(data, BATCH, 5, 0, rank, 2), workers))
    assert len(whole) == TRAIN // (2 * BATCH)
    for start in (1, 2, 4):
        fresh = pair_dataset(images_of(shards), shards, workers=workers)
        rest = list(make_loader(fresh, training_order(fresh, BATCH, 5, start, rank, 2), workers))
        assert len(rest) == len(whole) - start
        assert all(same(a, b) for a, b in zip(whole[start:], rest, strict=True))


def test_the_batches_are_those_of_the_order(prepared, streamed):
    ordinary = pair_dataset(array_of(prepared), prepared)
    for request in training_order(streamed, BATCH, 9):
        assert same(streamed[request], ordinary[request])


def test_resuming_reads_only_the_groups_that_are_left(shards, monkeypatch):
    data, read, names = pair_dataset(images_of(shards), shards), ShardFolder.read, []
    monkeypatch.setattr(
        ShardFolder, "read", lambda self, name, *rest: (names.append(name), read(self, name, *rest))[1]
    )
    list(make_loader(data, training_order(data, BATCH, 5)))
    assert len(names) == len(set(names)) >= TRAIN // 3
    assert len(data.images._held) <= GROUP
    whole = len(names)
    names.clear()
    fresh = pair_dataset(images_of(shards), shards)
    list(make_loader(fresh, training_order(fresh, BATCH, 5, start=9)))
    assert len(names) <= GROUP < whole


def test_arrays_keep_their_full_shuffle(prepared, streamed):
    ordinary = pair_dataset(array_of(prepared), prepared)
    order = training_order(ordinary, BATCH, 5, 2, 1, 2)
    expected = TrainingOrder(TRAIN, BATCH, 5, 2, 1, 2)
    assert [each.rows.tolist() for each in order] == [each.rows.tolist() for each in expected]
    assert isinstance(training_order(streamed, BATCH, 5), StreamOrder)


def test_too_few_studies_for_a_batch_are_named():
    with pytest.raises(UserError, match=r"usable training studies: 3, which do not fill one batch of 4: set"):
        StreamOrder(np.zeros(3, dtype=np.int32), BATCH, 5)


def test_fewer_shards_than_readers_are_shared_between_them_and_said(shards, caplog):
    data = pair_dataset(images_of(shards), shards, workers=16)
    with caplog.at_level(logging.WARNING):
        batches = [each for rank in range(2) for each in training_order(data, 2, 5, 0, rank, 2)]
    assert len(np.unique(np.concatenate([each.rows for each in batches]))) == 2 * len(batches)
    assert "15 shards for 2 rank(s) × 16 worker(s)" in caplog.text
    assert "--shards" in caplog.text


def test_held_images_are_those_rows_and_are_found_again(prepared, shards, empty_cache, monkeypatch):
    images, rows, counted = images_of(shards), np.array([5, 3, 30, 17]), []
    held = images.load(rows, counted.append)
    expected = array_of(prepared)
    assert sum(counted) == 4
    assert held.shape == (52, STORED, STORED)
    assert np.array_equal(held[np.array([30, 5])], expected[[30, 5]])
    with pytest.raises(IndexError):
        held[np.array([4])]
    assert np.array_equal(images.load(rows, counted.append)[rows], expected[rows])
    assert sum(counted) == 4  # none was decoded again
    assert len(list(empty_cache.iterdir())) == 1
    monkeypatch.setattr(read, "_CACHE_VERSION", -1)  # pixels are made by another rule
    images.load(rows, counted.append)
    assert sum(counted) == 8


def test_a_damaged_image_is_named_with_its_shard(shards, monkeypatch):
    data, read = pair_dataset(images_of(shards), shards), ShardFolder.read

    def damaged(self, name, *rest):
        return {member: content[:40] for member, content in read(self, name, *rest).items()}

    monkeypatch.setattr(ShardFolder, "read", damaged)
    for workers in (0, 1):
        with pytest.raises(UserError) as caught:
            list(iterate_batches(make_loader(data, training_order(data, BATCH, 5), workers)))
        pattern = r"[^\n]*/shards/train-0000\d\d\.tar: train-000000\d\d\.(jpg|png): (truncated|unreadable)[^\n]*"
        assert re.fullmatch(pattern, str(caught.value)), "one line, also out of a worker"


def test_a_member_or_shard_that_the_manifest_invents_is_named(shards):
    images = images_of(shards)
    images.members[0] = b"train-99999999.jpg"
    with pytest.raises(UserError, match=r"train-99999999\.jpg is not in the shard; write them again"):
        images[np.array([0])]
    with pytest.raises(UserError, match=r"shard x\.tar is not in shards\.json"):
        ShardImages(images.folder, np.array(["x.tar"]), np.array(["x.jpg"]), STORED)


def test_verified_reading_names_a_changed_shard(shards, tmp_path):
    images = images_of(shards)
    images.verify = True
    name = images.names[0]
    content = bytearray((shards / name).read_bytes())
    content[700] ^= 1
    (tmp_path / name).write_bytes(content)
    images.folder = ShardFolder(str(tmp_path), images.folder.index, images.folder.manifest, images.folder.shards)
    with pytest.raises(UserError, match=rf"{name}: damaged"):
        images[np.flatnonzero(images.shard_of_row == 0)[:1]]


def test_images_travel_to_workers_that_are_not_forked(streamed):
    again = pickle.loads(pickle.dumps(streamed.images))
    assert np.array_equal(again[np.array([3, 1])], streamed.images[np.array([3, 1])])
