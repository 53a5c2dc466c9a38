"""Boxes are where their images are, and nobody changes them."""

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou as library_iou

from cmcgns.evaluation.tasks.detection.boxes import BoxList
from cmcgns.metrics.detection import box_iou

BOXES = BoxList(
    4, np.array([0, 2, 2, 2]), np.array([[0, 0, 5, 5], [-4, 1, 6, 9], [30, 30, 50, 40], [-20, 0, 0.5, 9.0]])
)


def test_padded_boxes_are_those_of_the_rows():
    corners, there = BOXES.padded(np.array([2, 1, 0, 2]))
    assert there.tolist() == [[True] * 3, [False] * 3, [True, False, False], [True] * 3]
    assert np.allclose(corners[0], BOXES.corners[1:])
    assert np.allclose(corners[2, 0], BOXES.corners[0])
    assert corners[~there].abs().max() == 0
    corners += 1
    assert BOXES.corners[0].tolist() == [0, 0, 5, 5]


def test_images_without_boxes_can_be_padded():
    empty = BoxList(2, np.zeros(0, dtype=np.intp), np.zeros((0, 4)))
    for boxes, rows in ((empty, [0, 1]), (BOXES, [1, 3])):
        corners, there = boxes.padded(np.array(rows))
        assert corners.shape == (2, 1, 4)
        assert not there.any()


def test_what_the_crop_leaves():
    seen = BOXES.cut(40)
    assert seen.image.tolist() == [0, 2, 2]
    assert seen.corners.tolist() == [[0, 0, 5, 5], [0, 1, 6, 9], [30, 30, 40, 40]]
    assert BOXES.beyond(40) == 3
    assert BOXES.corners.min() == -20  # the truth is not touched
    assert seen.has_box.tolist() == [True, False, True, False]


def test_overlap_is_that_of_the_library():
    rng = np.random.default_rng(0)
    low = torch.from_numpy(rng.uniform(0, 50, (30, 2)))
    boxes = torch.cat([low, low + torch.from_numpy(rng.uniform(1, 30, (30, 2)))], 1)
    assert torch.allclose(box_iou(boxes[:20], boxes[20:]), library_iou(boxes[:20], boxes[20:]))
    batched = box_iou(boxes[:20].unflatten(0, (2, 10)), boxes[20:].unflatten(0, (2, 5)))
    assert torch.allclose(batched[1], library_iou(boxes[10:20], boxes[25:]))
    assert float(box_iou(torch.ones(1, 4), torch.ones(1, 4))) == pytest.approx(0)
