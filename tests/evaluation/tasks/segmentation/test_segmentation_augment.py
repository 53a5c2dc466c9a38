"""Image and mask are turned together, about the centre."""

import numpy as np
import pytest

from cmcgns.evaluation.task_settings.learned import SegmentationSettings
from cmcgns.evaluation.tasks.segmentation.decoders import turn_and_scale
from cmcgns.evaluation.tasks.segmentation.train import draw_changes


@pytest.fixture
def square():
    pixels = np.zeros((1, 32, 32), np.uint8)
    pixels[0, 4:12, 6:20] = 200
    return pixels, pixels > 100


def test_a_quarter_turn_and_a_doubling(square):
    pixels, masks = square
    turned = turn_and_scale(pixels, masks, np.array([[np.pi / 2, 1.0]]))
    # x to the right, y down: the picture turns so that its right side points up or down, never mirrored.
    quarters = [np.rot90(masks[0], turns) for turns in (1, 3)]
    assert any(np.array_equal(turned[1][0], each) for each in quarters)
    assert np.abs(turned[0][0].astype(int) - 200 * turned[1][0]).max() <= 1
    centre = np.zeros((1, 32, 32), bool)
    centre[0, 12:20, 12:20] = True
    larger = turn_and_scale(centre * np.uint8(255), centre, np.array([[0.0, 2.0]]))[1][0]
    assert larger.sum() == pytest.approx(256, abs=40)
    assert larger[9:23, 9:23].all()


def test_nothing_happens_to_images_that_are_left_alone(square):
    pixels, masks = (np.repeat(values, 3, axis=0) for values in square)
    found = turn_and_scale(pixels, masks, np.array([[0.0, 1.0], [0.2, 1.1], [0.0, 1.0]]))
    for before, after in zip((pixels, masks), found, strict=True):
        assert np.array_equal(before[[0, 2]], after[[0, 2]])
        assert not np.array_equal(before[1], after[1])
    assert np.array_equal(pixels, np.repeat(square[0], 3, axis=0))  # what was given stays as it was


def test_draws_keep_within_their_bounds():
    settings = SegmentationSettings(augment_share=0.5, augment_degrees=10, augment_scale=0.1)
    changes = draw_changes(4000, settings, 0, 0)
    left_alone = (changes == [0, 1]).all(axis=1)
    assert left_alone.mean() == pytest.approx(0.5, abs=0.03)
    assert np.abs(changes[:, 0]).max() == pytest.approx(np.radians(10), rel=0.01)
    assert np.abs(changes[:, 1] - 1).max() == pytest.approx(0.1, rel=0.01)
    assert np.array_equal(changes, draw_changes(4000, settings, 0, 0))
    assert not np.array_equal(changes, draw_changes(4000, settings, 0, 1))
