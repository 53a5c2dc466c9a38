"""Features are computed once, for the images and weights that they belong to."""

import numpy as np
import pytest
import torch
from linear_helpers import Encoder, make_job, oracle, write_images
from PIL import Image

from cmcgns.errors import UserError
from cmcgns.evaluation import features
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.features import pooled_features


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CMCGNS_CACHE", str(tmp_path / "cache"))


def images_of(folder, tmp_path):
    return make_job(folder, tmp_path).data.train


def test_features_are_those_of_the_encoder_in_order(tmp_path):
    encoder, images = oracle(), images_of(write_images(tmp_path / "d"), tmp_path)
    found = pooled_features(encoder, images, tmp_path / "f")
    expected = encoder.pooled(encoder.tensors(np.asarray(images.pixels))).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.dtype == np.float32
    assert isinstance(found, np.memmap)


def test_the_second_time_the_encoder_is_not_asked(tmp_path):
    encoder, images = oracle(), images_of(write_images(tmp_path / "d"), tmp_path)
    first = np.array(pooled_features(encoder, images, tmp_path / "f"))
    calls = encoder.encoder.body.calls
    np.testing.assert_array_equal(pooled_features(encoder, images, tmp_path / "f"), first)
    assert encoder.encoder.body.calls == calls


def test_other_weights_get_features_of_their_own(tmp_path):
    images = images_of(write_images(tmp_path / "d"), tmp_path)
    first = np.array(pooled_features(oracle(), images, tmp_path / "f"))
    other = Encoder()
    with torch.no_grad():
        other.body.layer1.bias += 1
    second = pooled_features(FrozenEncoder("other", other, 16, 16), images, tmp_path / "f")
    np.testing.assert_allclose(second, first + 1, atol=1e-6)


def test_other_batchnorm_statistics_get_features_of_their_own(tmp_path):
    images = images_of(write_images(tmp_path / "d"), tmp_path)
    first = np.array(pooled_features(oracle(), images, tmp_path / "f"))
    other = Encoder()
    other.body.norm.running_mean += 1
    assert abs(pooled_features(FrozenEncoder("other", other, 16, 16), images, tmp_path / "f") - first).min() > 0.5


def test_a_changed_image_gets_new_features(tmp_path):
    folder = write_images(tmp_path / "d")
    first = np.array(pooled_features(oracle(), images_of(folder, tmp_path), tmp_path / "f"))
    Image.fromarray(np.full((16, 16), 255, np.uint8)).save(folder / "images" / "3.png")
    second = pooled_features(oracle(), images_of(folder, tmp_path), tmp_path / "f")
    assert np.flatnonzero((first != second).any(axis=1)).tolist() == [3]


def test_changed_labels_leave_features_where_they_are(tmp_path):
    job = make_job(write_images(tmp_path / "d"), tmp_path)
    pooled_features(job.encoder, job.data.train, tmp_path / "f")
    job.data.train.labels[:] = np.nan
    pooled_features(job.encoder, job.data.train, tmp_path / "f")
    assert len(list((tmp_path / "f").glob("*.npy"))) == 1


def test_an_interrupted_computation_goes_on_after_its_last_block(tmp_path, monkeypatch):
    images = images_of(write_images(tmp_path / "d"), tmp_path)
    whole = np.array(pooled_features(oracle(), images, tmp_path / "whole"))
    monkeypatch.setattr(features, "_BLOCK", 50)
    monkeypatch.setattr(features, "_BATCH", 25)
    encoder = oracle()

    def stop(share: float) -> None:
        if share > 0.9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pooled_features(encoder, images, tmp_path / "f", stop)
    assert not list((tmp_path / "f").glob("*.npy"))
    encoder.encoder.body.calls = 0
    np.testing.assert_allclose(pooled_features(encoder, images, tmp_path / "f"), whole, atol=1e-6)
    assert encoder.encoder.body.calls == 1  # 120 images: blocks of 50, 50, 20; two were kept
    assert len(list((tmp_path / "f").iterdir())) == 1


def test_features_that_are_not_finite_name_their_image(tmp_path):
    images = images_of(write_images(tmp_path / "d"), tmp_path)
    broken = Encoder()
    with torch.no_grad():
        broken.body.layer1.bias[0] = torch.nan
    with pytest.raises(UserError, match=r"images/0\.png are not finite"):
        pooled_features(FrozenEncoder("broken", broken, 16, 16), images, tmp_path / "f")


def test_an_encoder_in_training_mode_is_refused(tmp_path):
    encoder = oracle()
    encoder.encoder.train()
    with pytest.raises(RuntimeError, match="eval mode"):
        pooled_features(encoder, images_of(write_images(tmp_path / "d"), tmp_path), tmp_path / "f")
