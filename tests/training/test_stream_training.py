"""Pretraining on shards: a run that is killed and resumed ends like one that was not, in every bit."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cmcgns.common.errors import UserError
from cmcgns.data.pairs.images import SomeImages
from cmcgns.data.shards.stream import ShardImages
from cmcgns.data.shards.write import write_shards
from cmcgns.training.data import prepare_data, summary
from support.training import (
    STEPS,
    TRAIN,
    VALIDATION,
    assert_same_end,
    first_batch,
    in_child,
    kill_at_step,
    run,
    run_with_fault,
    tiny_recipe,
)


@pytest.fixture(scope="module")
def shards(studies: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "shards"
    write_shards(studies, folder, per_shard=5)
    return folder


@pytest.fixture(scope="module")
def streamed(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    return run(shards, tmp_path_factory.mktemp("runs") / "streamed")


@pytest.mark.parametrize("step", [2, 10, 2 * STEPS + 3])
def test_killed_run_ends_with_the_same_bits(step: int, shards: Path, streamed: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert in_child(run_with_fault, kill_at_step, (step,), shards, out, tiny_recipe()) == -9
    run(shards, out, resume=True)
    assert_same_end(streamed, out)


def test_batches_of_near_reports_are_refused_before_anything_is_made(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"training\.batches=near .* set training\.batches=shuffled"):
        run(shards, tmp_path / "run", tiny_recipe(training__batches="near"))
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.slow
def test_killed_run_with_workers_and_accumulation_ends_with_the_same_bits(shards: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(data__workers=2, data__affine=0.1, training__accumulate=2, training__checkpoint_every=2)
    whole = run(shards, tmp_path / "whole", recipe)
    out = tmp_path / "run"
    assert in_child(run_with_fault, kill_at_step, (4,), shards, out, recipe) == -9
    run(shards, out, recipe, resume=True)
    assert_same_end(whole, out)


def test_rows_texts_and_pictures_are_those_of_the_table(studies: Path, shards: Path) -> None:
    recipe = tiny_recipe()
    near, far = prepare_data(recipe, studies), prepare_data(recipe, shards)
    assert isinstance(far.train.images, ShardImages)
    assert isinstance(far.validation.images, SomeImages)
    assert near.tokenizer.get_vocab() == far.tokenizer.get_vocab()
    assert summary(near) == summary(far)
    assert (len(far.train), len(far.validation)) == (TRAIN, VALIDATION)
    for first, second in ((near.train, far.train), (near.validation, far.validation)):
        a, b = (first_batch(dataset, list(range(10))) for dataset in (first, second))
        assert a.study_ids == b.study_ids
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.token_ids, b.token_ids)
    assert far.pairs.source == shards / "shards.json"


def test_validation_patients_can_be_held_out_of_the_training_shards(shards: Path) -> None:
    prepared = prepare_data(tiny_recipe(data__val_split=None, data__val_fraction=0.2), shards)
    assert not set(prepared.train.rows) & set(prepared.validation.rows)
    assert len(prepared.train) + len(prepared.validation) == TRAIN
    assert first_batch(prepared.validation, list(range(len(prepared.validation)))).images.shape[1:] == (1, 32, 32)


def test_a_url_trains_as_the_folder_does(shards: Path, streamed: Path, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    try:
        for file in shards.iterdir():
            memory.pipe(f"/bucket/shards/{file.name}", file.read_bytes())
        assert_same_end(streamed, run(Path("memory://bucket/shards"), tmp_path / "run"))
    finally:
        memory.store.clear()


def test_changed_shards_are_refused_on_resume(shards: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "shards", tmp_path / "run"
    shutil.copytree(shards, data)
    assert in_child(run_with_fault, kill_at_step, (5,), data, out, tiny_recipe()) == -9
    index = json.loads((data / "shards.json").read_text())
    index["shards"][0]["sha256"] = "0" * 64
    (data / "shards.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"shards\.json has changed since the run started"):
        run(data, out, resume=True)


def test_a_shard_that_is_cut_stops_the_run_by_name(shards: Path, tmp_path: Path) -> None:
    data = tmp_path / "shards"
    shutil.copytree(shards, data)
    file = data / "train-000003.tar"
    file.write_bytes(file.read_bytes()[:-600])
    with pytest.raises(UserError, match=r"train-000003\.tar: .* bytes instead of .*: truncated; write them again"):
        run(data, tmp_path / "run")


def test_more_readers_than_shards_is_said(studies: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_shards(studies, tmp_path / "shards", per_shard=100)
    prepared = prepare_data(tiny_recipe(data__workers=2), tmp_path / "shards")
    from cmcgns.data.shards.stream import training_order

    with caplog.at_level(logging.WARNING):
        order = training_order(prepared.train, 8, 1)
    rows = np.concatenate([request.rows for request in order])
    assert len(set(rows.tolist())) == STEPS * 8
    assert "1 shards for 1 rank(s) × 2 worker(s)" in caplog.text


def test_an_ordinary_table_may_name_its_images_by_url(studies: Path, tmp_path: Path) -> None:
    memory = pytest.importorskip("fsspec").filesystem("memory")
    frame = pd.read_parquet(studies / "manifest.parquet")
    try:
        for path in frame["image_path"]:
            memory.pipe(f"/bucket/{path}", (studies / path).read_bytes())
        table = tmp_path / "manifest.parquet"
        frame.assign(image_path="memory://bucket/" + frame["image_path"]).to_parquet(table)
        near, far = prepare_data(tiny_recipe(), studies), prepare_data(tiny_recipe(), table)
        assert np.array_equal(near.train.images[:5], far.train.images[:5])
        memory.rm(f"/bucket/{frame['image_path'][3]}")
        (tmp_path / "again").mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CMCGNS_CACHE", str(tmp_path / "again"))
            with pytest.raises(UserError, match=r"row 4: memory://bucket/images/.*: no such file"):
                prepare_data(tiny_recipe(), table)
    finally:
        memory.store.clear()
