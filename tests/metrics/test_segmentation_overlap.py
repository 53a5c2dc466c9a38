"""Dice and IoU are those of single images, whatever the batch, and their means honour weights."""

import time

import numpy as np
import pytest
import torch

from cmcgns.common.errors import UserError
from cmcgns.metrics.overlap import dice_and_iou, overlap_measures


def random_masks(images=40, side=7, seed=0):
    """Some empty, some full, some that agree."""
    rng = np.random.default_rng(seed)
    share = rng.choice([0, 0.1, 0.5, 1], images)[:, None, None]
    truth = rng.random((images, side, side)) < share
    drawn = rng.random((images, side, side)) < rng.permutation(share.ravel())[:, None, None]
    drawn[::5] = truth[::5]
    return drawn, truth


def counts_of(drawn, truth):
    return (drawn & truth).sum((1, 2)), drawn.sum((1, 2)), truth.sum((1, 2))


def slow(drawn, truth):
    """Sets of pixels, one image after the other."""
    dice, iou = [], []
    for first, second in zip(drawn, truth, strict=True):
        a, b = set(np.flatnonzero(first)), set(np.flatnonzero(second))
        dice.append(2 * len(a & b) / (len(a) + len(b)) if a or b else 1.0)
        iou.append(len(a & b) / len(a | b) if a or b else 1.0)
    return np.array(dice), np.array(iou)


def test_agrees_with_sets_of_pixels_and_with_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    drawn, truth = random_masks()
    dice, iou = dice_and_iou(*counts_of(drawn, truth))
    expected = slow(drawn, truth)
    assert np.allclose(dice, expected[0], atol=0)
    assert np.allclose(iou, expected[1], atol=0)
    for row in range(len(drawn)):
        flat = truth[row].ravel(), drawn[row].ravel()
        assert dice[row] == pytest.approx(sklearn.f1_score(*flat, zero_division=1))
        assert iou[row] == pytest.approx(sklearn.jaccard_score(*flat, zero_division=1))


@pytest.mark.filterwarnings("ignore:dice_score metric")  # of a changing default, which is not used
def test_agrees_with_torchmetrics_where_something_is_to_be_drawn():
    segmentation = pytest.importorskip("torchmetrics.functional.segmentation")
    drawn, truth = random_masks()
    some = truth.any((1, 2))
    dice, iou = dice_and_iou(*counts_of(drawn, truth))
    tensors = [torch.from_numpy(masks[some][:, None]).long() for masks in (drawn, truth)]
    expected = segmentation.dice_score(*tensors, num_classes=1, average="micro", input_format="one-hot")
    assert np.allclose(dice[some], expected.ravel())
    assert np.allclose(iou[some], segmentation.mean_iou(*tensors, num_classes=1, input_format="one-hot").ravel())


def test_nothing_drawn_on_nothing_is_right_and_anything_else_is_wrong():
    dice, iou = dice_and_iou([0, 0, 0, 5], [0, 1, 0, 5], [0, 0, 9, 5])
    assert dice.tolist() == iou.tolist() == [1, 0, 0, 1]


def test_weights_are_as_good_as_repeated_rows():
    counts = counts_of(*random_masks())
    dice, iou = dice_and_iou(*counts)
    truth, weights = counts[2], np.random.default_rng(1).integers(0, 4, (6, 40))
    found = overlap_measures(*counts).compute(weights)
    for row, weight in zip(found, weights, strict=True):
        again = np.repeat(np.arange(40), weight)
        having = again[truth[again] > 0]
        assert row == pytest.approx([dice[having].mean(), dice[again].mean(), iou[having].mean(), iou[again].mean()])


def test_names_and_undefined_figures():
    measures = overlap_measures([0, 3], [0, 4], [0, 3])
    assert [each.metric for each in measures.of] == ["dice_positive", "dice_all", "iou_positive", "iou_all"]
    found = measures.compute(np.array([[1, 0], [0, 0], [0, 1]]))
    assert np.array_equal(found[0], [np.nan, 1, np.nan, 1], equal_nan=True)
    assert np.isnan(found[1]).all()
    assert found[2] == pytest.approx([6 / 7, 6 / 7, 3 / 4, 3 / 4])


def test_a_subgroup_of_rows_is_a_weight_of_zero():
    counts = counts_of(*random_masks())
    inside = np.arange(40) < 17
    alone = overlap_measures(*(values[inside] for values in counts)).compute(np.ones((1, 17)))
    assert overlap_measures(*counts).compute(inside[None]) == pytest.approx(alone)


def test_two_thousand_resamples_are_quick():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 9, 12_000) * 10
    measures = overlap_measures(truth // 2, truth, truth)
    counts = rng.integers(0, 3, (2000, 12_000), dtype=np.int32)
    began = time.process_time()
    assert measures.compute(counts).shape == (2000, 4)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (([3], [2], [5]), "image 0: the intersection is larger"),
        (([1, -1], [2, 2], [5, 5]), "image 1"),
        (([1, 1], [2], [5]), r"must all be \(n,\)"),
    ],
)
def test_impossible_counts_are_refused(counts, message):
    with pytest.raises(UserError, match=message):
        dice_and_iou(*counts)
