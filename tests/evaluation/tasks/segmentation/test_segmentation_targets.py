"""Boxes are filled by the rule of halves, and masks are cropped as images are."""

from dataclasses import replace

import numpy as np
import pytest

from cmcgns.common.errors import UserError
from cmcgns.data.images.place import centre_crop
from cmcgns.evaluation.regions import fill_boxes, read_targets
from support.images import read_image_set


def slow_fill(boxes, side):
    """Area of every pixel in every box."""
    mask = np.zeros((side, side), bool)
    for x0, y0, x1, y1 in boxes:
        for row in range(side):
            for column in range(side):
                width = max(0, min(x1, column + 1) - max(x0, column))
                height = max(0, min(y1, row + 1) - max(y0, row))
                mask[row, column] |= width * height >= 0.5 - 1e-9
    return mask


def test_known_boxes():
    boxes = [
        np.array([[1.0, 2.0, 3.0, 5.0]]),
        np.zeros((0, 4)),
        np.array([[0.5, 0.0, 2.0, 1.0], [3.51, 3.0, 5.0, 4.0]]),  # half of a pixel counts, less does not
        np.array([[-9.0, -9.0, 99.0, 1.49]]),  # beyond the square
        np.array([[2.0, 2.0, 2.0, 4.0], [4.0, 4.0, 1.0, 1.0]]),  # without area, and inside out
    ]
    masks = fill_boxes(boxes, 6, 6)
    assert masks.shape == (5, 6, 6)
    assert masks[0].sum() == 6
    assert masks[0, 2:5, 1:3].all()
    assert not masks[1].any()
    assert np.argwhere(masks[2]).tolist() == [[0, 0], [0, 1], [3, 4]]
    assert masks[3, :1].all()
    assert masks[3].sum() == 6
    assert not masks[4].any()
    assert fill_boxes([], 6, 6).shape == (0, 6, 6)


def test_agrees_with_the_area_of_every_pixel():
    rng = np.random.default_rng(0)
    boxes = [np.sort(rng.uniform(-2, 11, (k, 2, 2)), axis=1).reshape(k, 4) for k in (0, 3, 1, 5, 0, 2)]
    masks = fill_boxes(boxes, 9, 9)
    for mask, some in zip(masks, boxes, strict=True):
        assert np.array_equal(mask, slow_fill(some, 9))


def test_a_box_must_be_finite():
    with pytest.raises(UserError, match="is not finite"):
        fill_boxes([np.array([[0.0, 1.0, np.nan, 2.0]])], 4, 4)


def test_boxes_and_masks_of_the_same_thing_agree(rectangles):
    images = read_image_set(rectangles, "train", 32)
    masks, boxes = (read_targets(images, kind, 32) for kind in ("masks", "boxes"))
    rows = np.arange(len(images))
    assert np.array_equal(masks.positive, rows % 3 > 0)
    assert np.array_equal(masks.of(rows), boxes.of(rows))
    assert np.array_equal(masks.of(rows), images.masks())
    assert np.array_equal(masks.of(rows[[5, 0, 5, 4]]), images.masks()[[5, 0, 5, 4]])
    assert len(masks.masks) == masks.positive.sum()


def test_masks_lie_where_the_cropped_image_is(rectangles):
    images = read_image_set(rectangles, "train", 32)
    targets, rows = read_targets(images, "masks", 20), np.arange(len(images))
    masks, pixels = targets.of(rows), centre_crop(images.pixels, 20)
    assert np.array_equal(masks, pixels > 100)
    assert targets.outside == pytest.approx(1 - masks.sum() / images.masks().sum())
    assert targets.outside > 0.05


def test_a_mask_without_a_pixel_is_an_empty_one(rectangles):
    images = read_image_set(rectangles, "train", 32)
    frame = images.frame.assign(mask_path=images.frame["mask_path"].where(images.frame.index != 1, "images/none.png"))
    from PIL import Image

    Image.fromarray(np.zeros((32, 32), np.uint8)).save(rectangles / "images" / "none.png")
    targets = read_targets(replace(images, frame=frame), "masks", 32)
    assert not targets.positive[1]
    assert targets.positive.sum() == 15


def test_images_that_nobody_annotated_are_named(rectangles):
    images = read_image_set(rectangles, "train", 32)
    frame = images.frame.assign(boxes=images.frame["boxes"].where(images.frame.index != 4, ""))
    with pytest.raises(UserError, match=r"4\.dcm: has no annotation of boxes"):
        read_targets(replace(images, frame=frame), "boxes", 32)
