"""Outputs become detections: best first, none twice, no more than asked for."""

import pytest
import torch
from torchvision.ops import nms

from cmcgns.evaluation.tasks.detection.boxes import anchor_grid
from cmcgns.evaluation.tasks.detection.head import OUTPUTS, YoloHead
from cmcgns.evaluation.tasks.detection.predict import detect

GRID = anchor_grid([(28, 28), (14, 14), (7, 7)], 224)


def outputs(seed, images=3, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, len(GRID.place), OUTPUTS, generator=generator) * spread


@pytest.mark.parametrize(("spread", "most", "floor"), [(1.0, 100, 0.0), (1.0, 5, 0.3), (0.05, 1200, 0.0)])
def test_each_image_is_what_it_is_alone(spread, most, floor):
    """In the last case the best 1000 boxes of an image leave fewer than are wanted."""
    raw = outputs(0, spread=spread)
    found = detect(raw, GRID, floor, 0.5, most)
    boxes, logits = GRID.decode(raw).clamp(0, 224), raw[..., 4]
    for image in range(3):
        scores = logits[image].double().sigmoid()
        kept = nms(boxes[image], logits[image], 0.5)
        kept = kept[scores[kept] >= floor][:most]
        own = found.image == image
        assert torch.equal(found.scores[own], scores[kept])
        assert torch.equal(found.boxes[own], boxes[image][kept])


def test_a_high_floor_leaves_images_without_a_detection():
    raw = outputs(1)
    raw[1, :, 4] = -5
    found = detect(raw, GRID, 0.5, 0.5, 100)
    assert set(found.image.tolist()) == {0, 2}
    assert found.scores.min() >= 0.5
    nothing = detect(torch.full_like(raw, -9.0), GRID, 0.5, 0.5, 100)
    assert nothing.boxes.shape == (0, 4)


def test_no_output_is_too_large_to_decode():
    raw = torch.full((1, len(GRID.place), OUTPUTS), 500.0)
    found = detect(raw, GRID, 0.0, 0.5, 100)
    assert found.boxes.isfinite().all()
    assert found.boxes.min() >= 0
    assert found.boxes.max() <= 224


@pytest.mark.parametrize("level", [0, 1, 2])
def test_every_output_belongs_to_its_place(level):
    """Light one position of one map: of its level's outputs those change that three 3 × 3 convolutions reach."""
    torch.manual_seed(0)
    head = YoloHead([4, 6, 8], 8).eval()
    maps = [torch.zeros(1, width, side, side) for width, side in zip((4, 6, 8), (28, 14, 7), strict=True)]
    dark = head(maps)
    assert dark.shape == (1, len(GRID.place), OUTPUTS)
    side, row, column = maps[level].shape[2], 1, 5
    maps[level][0, :, row, column] = 1000.0
    changed = (head(maps) != dark).any(2)[0]
    own = GRID.cell[:, 0] == 224 / side
    reached = (GRID.place - torch.tensor([column, row])).abs().amax(1) <= 3
    assert changed[own & reached].float().mean() > 0.9
    assert not changed[own & ~reached].any()
    coarser = GRID.cell[:, 0] > 224 / side
    assert not changed[coarser].any()


def test_every_parameter_of_the_head_learns():
    torch.manual_seed(0)
    head = YoloHead([4, 6, 8], 8)
    maps = [torch.randn(2, width, side, side) for width, side in zip((4, 6, 8), (28, 14, 7), strict=True)]
    head(maps).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in head.parameters())


def test_it_starts_by_finding_next_to_nothing():
    torch.manual_seed(0)
    scores = YoloHead([4, 6, 8], 8)([torch.randn(2, w, s, s) for w, s in ((4, 28), (6, 14), (8, 7))])[
        ..., 4
    ].sigmoid()
    assert float(scores.detach().mean()) == pytest.approx(0.01, rel=0.3)
