"""Random turns, scales and shifts: what they do to a picture, and that they are a study's own."""

import numpy as np
import pytest
import torch

from cmcgns.data.pairs.batch import BatchRequest
from cmcgns.data.pairs.dataset import affine_crop, normalise_pixels
from cmcgns.settings.config import DataSettings
from support.shards import SIZE, STORED, array_of, pair_dataset, write_prepared

MIDDLE = np.full((1, 4), 0.5)  # the draw that changes nothing


def picture(side=40):
    return np.random.default_rng(0).integers(0, 256, (1, side, side), dtype=np.uint8)


def draw(**changes):
    """One draw; `angle`, `scale`, `down`, `right` from -1 to 1 of the strength."""
    names = ("angle", "scale", "down", "right")
    return np.array([[0.5 + 0.5 * changes.get(name, 0) for name in names]])


def slow(image, offset, size, angle, scale, down, right):
    """Pixel by pixel: undo shift, scale and turn about the crop's centre, then mix the four neighbours."""
    result, side, half = np.empty((size, size)), image.shape[0], (size - 1) / 2
    for row in range(size):
        for column in range(size):
            v, u = row - half, column - half
            y = offset[0] + half - down + (np.sin(angle) * u + np.cos(angle) * v) / scale
            x = offset[1] + half - right + (np.cos(angle) * u - np.sin(angle) * v) / scale
            top, left = int(np.floor(y)), int(np.floor(x))
            value = 0.0
            for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
                weight = (1 - abs(y - top - i)) * (1 - abs(x - left - j))
                if 0 <= top + i < side and 0 <= left + j < side:
                    value += weight * image[top + i, left + j]
            result[row, column] = value
    return result / 127.5 - 1


@pytest.mark.parametrize(
    ("changes", "strength"),
    [({}, 0.3), ({"angle": 0.7}, 0.4), ({"scale": -1}, 0.2), ({"down": 0.6, "right": -0.9}, 0.1),
     ({"angle": -1, "scale": 0.5, "down": -1, "right": 0.3}, 0.5)],
)  # fmt: skip
def test_equals_a_slow_reference(changes, strength):
    image, offset, size = picture(), np.array([[3, 9]]), 24
    found = affine_crop(image, offset, draw(**changes), size, strength)
    angle, scale = changes.get("angle", 0) * strength, 1 + changes.get("scale", 0) * strength
    down, right = (changes.get(name, 0) * strength * size for name in ("down", "right"))
    expected = slow(image[0], offset[0], size, angle, scale, down, right)
    assert np.abs(found[0].numpy() - expected).max() < 2e-3


def test_the_middle_of_the_draws_is_the_plain_crop():
    image = picture()
    found = affine_crop(image, np.array([[5, 2]]), MIDDLE, 24, 0.3)
    assert torch.allclose(found, normalise_pixels(image[:, 5:29, 2:26]), atol=1e-4)


def test_positive_draws_turn_enlarge_and_shift_as_said():
    image = np.zeros((1, 41, 41), dtype=np.uint8)
    image[0, 20, 25] = 255  # five to the right of the centre
    at = lambda **changes: np.unravel_index(  # noqa: E731
        affine_crop(image, np.zeros((1, 2), dtype=int), draw(**changes), 41, 0.5)[0].argmax(), (41, 41)
    )
    assert at() == (20, 25)
    assert at(scale=0.8) == (20, 27)  # 1.4 times as far
    assert at(down=0.1951) == (24, 25)
    assert at(right=-0.1951) == (20, 21)
    assert at(angle=1) == (18, 24)  # half a radian counter-clockwise on the screen


def test_a_study_s_turn_is_its_own_in_an_epoch_and_none_in_evaluation(tmp_path):
    prepared = write_prepared(tmp_path / "p", {"train": 12}, shape=(STORED, STORED))
    images = array_of(prepared)
    plain, turned = pair_dataset(images, prepared), pair_dataset(images, prepared, affine=0.2)
    rows = np.arange(12)
    assert torch.equal(plain[BatchRequest(rows)].images, turned[BatchRequest(rows)].images)
    together = turned[BatchRequest(rows, 4)].images
    assert together.shape == (12, 1, SIZE, SIZE)
    assert (together.min(), together.max()) >= (-1, -1)
    assert together.max() <= 1
    for row in rows:
        assert torch.equal(turned[BatchRequest(rows[row : row + 1], 4)].images[0], together[row])
    assert not torch.equal(turned[BatchRequest(rows, 5)].images, together)
    assert not torch.equal(plain[BatchRequest(rows, 4)].images, together)


def test_off_by_default_and_bounded():
    assert DataSettings().affine == 0
    with pytest.raises(ValueError, match="affine"):
        DataSettings(affine=0.6)
