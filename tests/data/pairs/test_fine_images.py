"""Pictures of twice the side: the same view of the same study, in twice the pixels."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from cmcgns.data.pairs.batch import BatchRequest
from cmcgns.data.pairs.dataset import PairDataset
from cmcgns.data.pairs.images import count_small
from cmcgns.data.shards.write import write_shards
from cmcgns.phantom import write_dataset
from cmcgns.training.data import prepare_data
from support.batches import checked
from support.shards import images_of, pair_dataset, write_prepared
from support.training import tiny_recipe

ROWS = np.arange(6)


def smooth(side: int) -> np.ndarray:
    """Six pictures that are the same function of the place, sampled at the middle of pixels."""
    place = (np.arange(side) + 0.5) / side
    waves = [np.sin(7 * place[:, None] + n) + np.cos(5 * place[None] - n) for n in range(6)]
    return np.round((np.stack(waves) / 2 + 1) * 127).astype(np.uint8)


def dataset(folder: Path, **settings: float) -> PairDataset:
    prepared = write_prepared(folder, {"train": 6})
    plain = pair_dataset(smooth(24), prepared, **settings)
    return PairDataset(
        plain.images, plain.tokens, plain.study_ids, plain.rows, plain.settings, fine=smooth(48)
    ).subset(plain.rows)


@pytest.mark.parametrize("settings", [{}, {"affine": 0.2}, {"random_crop": False}], ids=str)
@pytest.mark.parametrize("seed", [None, 1, 2])
def test_the_fine_view_made_small_is_the_view(settings: dict[str, float], seed: int | None, tmp_path: Path) -> None:
    batch = dataset(tmp_path / "p", intensity_jitter=0.1, **settings)[BatchRequest(ROWS, seed)]
    assert batch.fine_images is not None
    assert batch.fine_images.shape == (6, 1, 32, 32)
    small = F.avg_pool2d(batch.fine_images, 2)
    inner = (..., slice(3, -3), slice(3, -3))  # outside of the picture there is black, at whose edge halves differ
    error = (small - batch.images)[inner].abs()
    assert float(error.quantile(0.95)) < 0.03
    moved = F.avg_pool2d(batch.fine_images.roll(2, 3), 2)
    assert float((moved - batch.images)[inner].abs().mean()) > 4 * float(error.mean())


def test_nobody_asked_nobody_gets_them_and_the_view_is_the_same_either_way(tmp_path: Path) -> None:
    fine = dataset(tmp_path / "p")
    plain = PairDataset(fine.images, fine.tokens, fine.study_ids, fine.rows, fine.settings)
    request = BatchRequest(ROWS, 4)
    assert plain[request].fine_images is None
    assert torch.equal(plain[request].images, checked(fine[request]).images)


def test_small_files_are_counted(tmp_path: Path) -> None:
    for side in (20, 40, 60):
        Image.fromarray(np.zeros((side, 10), np.uint8)).save(tmp_path / f"{side}.png")
    paths = [str(path) for path in sorted(tmp_path.iterdir())]
    assert count_small(paths, 40) == (1, 3)
    assert count_small([*paths, "https://example.org/x.png"], 61) == (3, 3)
    assert count_small([], 40) == (0, 0)


def test_a_run_reads_them_where_its_target_has_twice_the_side(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_dataset(tmp_path / "studies", {"train": 6, "val": 3}, size=40)
    plain = prepare_data(tiny_recipe(), tmp_path / "studies")
    assert plain.train.fine is None
    with caplog.at_level(logging.WARNING):
        prepared = prepare_data(tiny_recipe(objective__target_scale=2), tmp_path / "studies")
    assert "9 images looked at, 9 are smaller than 72 px" in caplog.text
    for off in ({"objective__weight_reconstruction": 0.0}, {"reconstruction__epochs": 0}):
        assert prepare_data(tiny_recipe(objective__target_scale=2, **off), tmp_path / "studies").train.fine is None
    for part, rows in ((prepared.train, 6), (prepared.validation, 3)):
        batch = part[BatchRequest(np.arange(rows))]
        assert batch.fine_images is not None
        assert batch.fine_images.shape == (rows, 1, 64, 64)
        assert float((F.avg_pool2d(batch.fine_images, 2) - batch.images).abs().mean()) < 0.05


def test_of_shards_too(tmp_path: Path) -> None:
    prepared = write_prepared(tmp_path / "p", {"train": 6, "val": 3}, shape=(96, 96))
    write_shards(prepared, tmp_path / "shards", per_shard=4)
    changes = {"data__image_size": 32, "data__resize": 36, "objective__target_scale": 2}
    near, far = (prepare_data(tiny_recipe(**changes), place) for place in (prepared, tmp_path / "shards"))
    for first, second in ((near.train, far.train), (near.validation, far.validation)):
        request = BatchRequest(np.arange(len(first)))
        assert torch.equal(first[request].fine_images, second[request].fine_images)
    assert images_of(tmp_path / "shards").shape[0] == 9
