"""Features are computed once, for the images and weights that they belong to."""

import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cmcgns.common.errors import UserError
from cmcgns.evaluation import features
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.features import pooled_features
from support.evaluation import Encoder, oracle
from support.linear import make_job, write_images


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
    monkeypatch.setattr(features, "BATCH", 25)
    encoder = oracle()

    def stop(share: float) -> None:
        if share > 0.9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pooled_features(encoder, images, tmp_path / "f", stop)
    assert {file.suffixes[0] for file in (tmp_path / "f").iterdir()} == {".0", ".50"}
    encoder.encoder.body.calls = 0
    np.testing.assert_allclose(pooled_features(encoder, images, tmp_path / "f"), whole, atol=1e-6)
    assert encoder.encoder.body.calls == 1  # 120 images: blocks of 50, 50, 20; two were kept
    assert len(list((tmp_path / "f").iterdir())) == 1


@pytest.mark.usefixtures("no_locks")
def test_another_process_may_finish_and_clear_up_meanwhile(tmp_path, monkeypatch):
    """At every moment: before a block, within one, and between the last block and the joining."""
    images = images_of(write_images(tmp_path / "d"), tmp_path)
    whole = np.array(pooled_features(oracle(), images, tmp_path / "whole"))
    monkeypatch.setattr(features, "_BLOCK", 50)
    monkeypatch.setattr(features, "BATCH", 25)
    moments: list[float] = []
    pooled_features(oracle(), images, tmp_path / "moments", moments.append)
    for number in range(len(moments)):
        folder, left = tmp_path / f"f{number}", iter(range(number, -1, -1))

        def overtake(share: float, folder: Path = folder, left=left) -> None:
            del share
            if next(left, None) == 0:
                pooled_features(oracle(), images, folder)

        np.testing.assert_allclose(pooled_features(oracle(), images, folder, overtake), whole, atol=1e-6)
        assert [path.suffix for path in folder.iterdir()] == [".npy"]


def test_blocks_that_vanish_before_they_are_joined_are_computed_again(tmp_path, monkeypatch):
    images = images_of(write_images(tmp_path / "d"), tmp_path)
    whole = np.array(pooled_features(oracle(), images, tmp_path / "whole"))
    monkeypatch.setattr(features, "_BLOCK", 50)

    def lose_the_first(share: float) -> None:
        if share == 1.0:
            for block in (tmp_path / "f").glob("*.0.npy"):
                block.unlink()

    found = pooled_features(oracle(), images, tmp_path / "f", lose_the_first)
    np.testing.assert_allclose(found, whole, atol=1e-6)


@pytest.mark.parametrize("damage", [lambda content: content[:-100], lambda content: b"", lambda content: content[:9]])
def test_damaged_features_are_computed_again(tmp_path, caplog, damage):
    images = images_of(write_images(tmp_path / "d"), tmp_path)
    first = np.array(pooled_features(oracle(), images, tmp_path / "f"))
    (file,) = (tmp_path / "f").glob("*.npy")
    file.write_bytes(damage(file.read_bytes()))
    np.testing.assert_array_equal(pooled_features(oracle(), images, tmp_path / "f"), first)
    assert f"{file.name}: damaged or not finished; it is made again" in caplog.text


RACE = """
import sys, time
from pathlib import Path
import numpy as np
from support.evaluation import oracle
from support.linear import make_job
from cmcgns.evaluation import features
features._BLOCK = features.BATCH = 12
data, cache, start, out = map(Path, sys.argv[1:])
images = make_job(data, cache).data.train
encoder = oracle()
out.with_suffix(".ready").touch()
while not start.exists():
    time.sleep(0.001)
for round in range(2):
    np.save(out.with_suffix(f".{round}.npy"), features.pooled_features(encoder, images, cache / f"features{round}"))
"""


def test_two_processes_share_one_cache(tmp_path):
    folder = write_images(tmp_path / "d")
    expected = np.array(pooled_features(oracle(), images_of(folder, tmp_path), tmp_path / "alone"))
    outs = [tmp_path / name for name in ("first", "second")]
    command = [sys.executable, "-c", RACE, folder, tmp_path, tmp_path / "start"]
    here = {"cwd": Path(__file__).parents[1], "stderr": subprocess.PIPE, "text": True}
    with ExitStack() as stack:
        running = [stack.enter_context(subprocess.Popen([*map(str, command), str(out)], **here)) for out in outs]
        for process in running:
            stack.callback(process.kill)
        while not all(out.with_suffix(".ready").exists() for out in outs):
            assert all(process.poll() is None for process in running), "a process failed before it began"
            time.sleep(0.01)
        (tmp_path / "start").touch()
        for process in running:
            error = process.communicate(timeout=300)[1]
            assert process.returncode == 0, error
    for out in outs:
        for number in range(2):
            np.testing.assert_allclose(np.load(out.with_suffix(f".{number}.npy")), expected, atol=1e-6)
    for number in range(2):
        assert len(list((tmp_path / f"features{number}").glob("*.npy"))) == 1


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


def test_an_encoder_of_another_size_is_tried_where_its_weights_are(monkeypatch):
    """On a GPU the images that it is tried with have to be there too."""
    encoder, seen, maps = oracle(4), [], FrozenEncoder.maps
    monkeypatch.setattr(FrozenEncoder, "device", property(lambda _: torch.device("meta")))
    monkeypatch.setattr(
        FrozenEncoder,
        "maps",
        lambda self, images: seen.append(images.device.type) or maps(self, torch.zeros(images.shape)),
    )
    encoder.at_size(2 * encoder.image_size)
    assert seen == ["meta"]
    assert features._made_by(encoder) == f"{encoder.features_sha256} meta"  # a GPU rounds otherwise
