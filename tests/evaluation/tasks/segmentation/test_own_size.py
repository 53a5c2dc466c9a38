"""Masks are judged at their own size, whatever the encoder sees, and kept so that they can be judged again."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from PIL import Image

from cmcgns.common.errors import UserError
from cmcgns.data.images.place import fit_in_square, place_in_square
from cmcgns.evaluation.regions import read_targets, whole_target
from cmcgns.evaluation.tasks.segmentation.own_size import OwnSize, enlarge, runs_of
from cmcgns.evaluation.tasks.segmentation.task import TASK
from cmcgns.metrics.overlap import dice_and_iou
from support.evaluation import oracle, write_pictures
from support.images import read_image_set

SIZES = [(512, 400), (300, 512), (512, 512), (40, 64)]


def ellipse(height, width, seed):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    centre, radius = rng.uniform(0.35, 0.65, 2) * (height, width), rng.uniform(0.08, 0.25, 2) * (height, width)
    return ((y + 0.5 - centre[0]) / radius[0]) ** 2 + ((x + 0.5 - centre[1]) / radius[1]) ** 2 < 1


@pytest.fixture
def ellipses(tmp_path):
    folder, masks = tmp_path / "data", [ellipse(*size, seed) for seed, size in enumerate(SIZES)]
    names = [f"images/m{number}.png" for number in range(len(masks))]
    write_pictures(folder, [np.where(mask, 200, 20).astype(np.uint8) for mask in masks], mask_path=names)
    for name, mask in zip(names, masks, strict=True):
        Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(folder / name)
    return folder, masks


def pil_enlarged(probability, side, height, width):
    """The same with Pillow."""
    inside = place_in_square(width, height, side).inside
    picture = Image.fromarray(probability[inside].astype(np.float32))
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))


@pytest.mark.parametrize("size", SIZES)
def test_enlarging_agrees_with_pillow(size):
    probability = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    found = enlarge(torch.from_numpy(probability), 64, *size).numpy()
    np.testing.assert_allclose(found, pil_enlarged(probability, 64, *size), atol=2e-5)


def test_what_the_crop_left_out_is_not_drawn():
    drawn = enlarge(torch.ones(48, 48), 64, 64, 64)
    assert drawn.sum() == 48**2
    assert drawn[8:56, 8:56].all()


def test_a_mask_drawn_without_a_fault_at_64_pixels_is_not_perfect_at_its_own_size(ellipses):
    folder, masks = ellipses
    images = read_image_set(folder, "test", 64)
    seen = read_targets(images, "masks", 64).of(np.arange(4))
    own = OwnSize(images, "masks", 0.5)
    own.add(np.arange(4), torch.from_numpy(np.where(seen, 20.0, -20.0)))
    arrays = own.arrays()
    expected = []
    for mask, small in zip(masks, seen, strict=True):
        drawn = pil_enlarged(small.astype(np.float32), 64, *mask.shape) > 0.5
        expected.append((2 * (drawn & mask).sum() / (drawn.sum() + mask.sum()), mask.sum()))
    dice = dice_and_iou(*(arrays[f"own_{name}"] for name in ("intersection", "predicted", "truth")))[0]
    np.testing.assert_allclose(dice, [value for value, _ in expected], atol=2e-3)
    assert arrays["own_truth"].tolist() == [pixels for _, pixels in expected]
    assert 0.93 < dice[:3].mean() < 0.99  # eight pixels of the mask are one of the encoder's
    assert dice[3] == 1.0  # 64 pixels are its own size


def kept_masks(arrays):
    """The drawn masks (h, w) of a cell's arrays, image by image."""
    parts = np.split(arrays["mask_runs"], np.cumsum(arrays["mask_run_counts"])[:-1])
    for size, runs in zip(arrays["mask_sizes"], parts, strict=True):
        yield np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(size)


def test_kept_masks_are_those_that_were_judged(ellipses):
    folder, masks = ellipses
    images = read_image_set(folder, "test", 64)
    own, rng = OwnSize(images, "masks", 0.5), np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(4, 64, 64)) - 1)
    own.add(np.array([2, 0]), logits[[2, 0]])
    own.add(np.array([1, 3]), logits[[1, 3]])
    arrays = own.arrays()
    for row, drawn in enumerate(kept_masks(arrays)):
        assert drawn.shape == masks[row].shape
        assert (drawn & masks[row]).sum() == arrays["own_intersection"][row]
        assert drawn.sum() == arrays["own_predicted"][row]
        assert (drawn == (enlarge(logits[row].sigmoid(), 64, *drawn.shape).numpy() > 0.5)).all()


@settings(max_examples=200, deadline=None)
@given(arrays_of.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_runs_hold_the_mask(mask):
    runs = runs_of(mask)
    assert runs.sum() == mask.size
    kept = {"mask_sizes": np.array([mask.shape]), "mask_runs": runs, "mask_run_counts": np.array([len(runs)])}
    (found,) = kept_masks(kept)
    assert np.array_equal(found, mask)


def test_boxes_are_filled_at_the_size_of_the_picture(rectangles):
    images = read_image_set(rectangles, "test", 32)
    for row in range(len(images)):
        assert np.array_equal(whole_target(images, row, "boxes"), whole_target(images, row, "masks"))
    wide = replace(
        images,
        frame=images.frame.assign(
            boxes='[{"x": 10, "y": 0, "width": 3, "height": 2}]', width=pd.array([20] * 8, "Int32"),
            height=pd.array([10] * 8, "Int32"),
        ),
    )  # fmt: skip
    assert np.argwhere(whole_target(wide, 0, "boxes")).tolist() == [[y, x] for y in (0, 1) for x in (10, 11, 12)]
    assert whole_target(wide, 0, "boxes").shape == (10, 20)


def test_both_sizes_are_told(rectangles, make_job):
    job = make_job(rectangles, oracle(1, 32), decoder="unet", epochs=2)
    ((_, predictions),) = TASK.run(job)
    names = [one.metric for one in TASK.measures(predictions).of]
    assert names == [f"{figure}_{rows}{at}" for at in ("", "_full") for figure in ("dice", "iou")
                     for rows in ("positive", "all")]  # fmt: skip
    arrays = predictions.arrays
    for name in ("intersection", "predicted", "truth"):  # pictures of 32 pixels have the encoder's size
        assert np.array_equal(arrays[name], arrays[f"own_{name}"])


def test_a_mask_of_another_shape_than_its_image_is_named(ellipses):
    folder, _ = ellipses
    Image.fromarray(np.full((100, 300), 255, np.uint8)).save(folder / "images" / "m2.png")
    images = read_image_set(folder, "test", 64)
    with pytest.raises(UserError, match=r"m2\.png: the mask has 300×100 pixels, its image 512×512"):
        images.masks()
    with pytest.raises(UserError, match=r"m2\.png: the mask has"):
        whole_target(images, 2, "masks")
    Image.fromarray(fit_in_square(np.full((9, 9), 255, np.uint8), 64)).save(folder / "images" / "m2.png")
    assert images.masks()[2].all()  # the same shape at another size
