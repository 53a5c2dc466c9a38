"""Which output answers for which box, and what its loss is, against slow and obvious references."""

import math

import numpy as np
import pytest
import torch

from cmcgns.evaluation.tasks.detection.boxes import ANCHORS, ANCHORS_SIZE, BoxList, anchor_grid, assign
from cmcgns.evaluation.tasks.detection.train import detection_loss
from cmcgns.metrics.detection import box_iou

SIZE = 128
GRIDS = [(16, 16), (8, 8), (4, 4)]
GRID = anchor_grid(GRIDS, SIZE)


def random_boxes(seed, images=6, most=5):
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(images), rng.integers(0, most + 1, images))
    low = rng.uniform(0, SIZE - 2, (len(image), 2))
    high = np.minimum(low + np.exp(rng.uniform(0.7, 4.5, low.shape)), SIZE)
    return BoxList(images, image, np.concatenate([low, high], axis=1))


def place_of(box):
    """Level, row, column, anchor of one box, by trying all."""
    x0, y0, x1, y1 = box
    width, height = x1 - x0, y1 - y0
    best, chosen = -1.0, None
    for level, three in enumerate(ANCHORS):
        for number, (w, h) in enumerate(three):
            w, h = w * SIZE / ANCHORS_SIZE, h * SIZE / ANCHORS_SIZE
            both = min(w, width) * min(h, height)
            shared = both / (w * h + width * height - both)
            if shared > best:
                best, chosen = shared, (level, number, w, h)
    level, number, w, h = chosen
    rows, columns = GRIDS[level]
    column = min(int((x0 + x1) / 2 / SIZE * columns), columns - 1)
    row = min(int((y0 + y1) / 2 / SIZE * rows), rows - 1)
    return level, row, column, number, w, h


def slow_targets(boxes):
    """(image, output) -> (box, x, y, log width, log height); the first box of an output wins."""
    before = np.cumsum([0] + [rows * columns * 3 for rows, columns in GRIDS])
    found = {}
    for image, box in zip(boxes.image, boxes.corners.astype(np.float32), strict=True):
        level, row, column, number, w, h = place_of(box)
        rows, columns = GRIDS[level]
        output = int(before[level]) + (row * columns + column) * 3 + number
        x, y = (box[0] + box[2]) / 2 / SIZE * columns - column, (box[1] + box[3]) / 2 / SIZE * rows - row
        if (int(image), output) not in found:
            sizes = math.log((box[2] - box[0]) / w), math.log((box[3] - box[1]) / h)
            found[int(image), output] = (box, x, y, *sizes)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_targets_are_those_of_a_loop_over_boxes(seed):
    boxes = random_boxes(seed)
    corners, there = boxes.padded(np.arange(boxes.images))
    before = corners.clone()
    target = assign(corners, there, GRID)
    assert torch.equal(corners, before)
    expected = slow_targets(boxes)
    keys = list(zip(target.image.tolist(), target.output.tolist(), strict=True))
    assert sorted(keys) == sorted(expected)
    for number, key in enumerate(keys):
        _, x, y, width, height = expected[key]
        assert target.offset[number].tolist() == pytest.approx([x, y], abs=1e-4)
        assert target.log_size[number].tolist() == pytest.approx([width, height], abs=1e-4)


def test_an_output_that_hits_its_target_decodes_to_the_box():
    boxes = random_boxes(7)
    corners, there = boxes.padded(np.arange(boxes.images))
    target = assign(corners, there, GRID)
    raw = torch.zeros(boxes.images, len(GRID.place), 5)
    raw[target.image, target.output, :2] = torch.logit(target.offset, 1e-6)
    raw[target.image, target.output, 2:4] = target.log_size
    decoded = GRID.decode(raw)[target.image, target.output]
    overlap = box_iou(decoded[:, None], corners[target.image])[:, 0] * there[target.image]
    assert overlap.amax(1).min() > 0.999


def test_of_two_boxes_in_one_cell_and_anchor_the_first_is_learnt():
    corners = torch.tensor([[[10.0, 10, 20, 20], [10, 10, 20.5, 20], [70, 70, 80, 80]]])
    target = assign(corners, torch.ones(1, 3, dtype=torch.bool), GRID)
    assert len(target.image) == 2
    assert len(set(target.output.tolist())) == 2
    alone = assign(corners[:, :1], torch.ones(1, 1, dtype=torch.bool), GRID)
    same = target.output == alone.output
    assert torch.equal(target.log_size[same], alone.log_size)
    again = assign(corners[:, [1, 0, 2]], torch.ones(1, 3, dtype=torch.bool), GRID)
    assert not torch.equal(again.log_size[again.output == alone.output], alone.log_size)


@pytest.mark.parametrize("box", [[0, 0, 3, 3], [125, 125, 128, 128], [0, 0, 128, 128], [127, 0, 128, 128]])
def test_boxes_at_the_border_have_a_cell(box):
    target = assign(torch.tensor([[box]]).float(), torch.ones(1, 1, dtype=torch.bool), GRID)
    assert 0 <= int(target.output) < len(GRID.place)
    assert target.offset.min() >= 0
    assert target.offset.max() <= 1
    raw = torch.zeros(1, len(GRID.place), 5, requires_grad=True)
    loss = detection_loss(raw, torch.tensor([[box]]).float(), torch.ones(1, 1, dtype=torch.bool), GRID)
    loss.backward()
    assert loss.isfinite()
    assert raw.grad.isfinite().all()


def test_a_centre_on_the_far_border_is_in_the_last_cell():
    target = assign(torch.tensor([[[128.0, 128, 128.001, 128.001]]]), torch.ones(1, 1, dtype=torch.bool), GRID)
    assert GRID.place[target.output].tolist() == [[15, 15]]


def slow_loss(raw, boxes):
    expected = slow_targets(boxes)
    decoded = GRID.decode(raw)
    total = 0.0
    for image in range(len(raw)):
        own = boxes.corners[boxes.image == image]
        for output in range(raw.shape[1]):
            x, y, width, height, objectness = (float(value) for value in raw[image, output])
            log_p, log_not = -math.log1p(math.exp(-objectness)), -math.log1p(math.exp(objectness))
            if (image, output) in expected:
                box, tx, ty, tw, th = expected[image, output]
                weight = 2 - (box[2] - box[0]) * (box[3] - box[1]) / SIZE**2
                for value, wanted in ((x, tx), (y, ty)):
                    p = 1 / (1 + math.exp(-value))
                    total -= weight * (wanted * math.log(p) + (1 - wanted) * math.log(1 - p))
                total += weight * ((width - tw) ** 2 + (height - th) ** 2) / 2 - log_p
                continue
            x0, y0, x1, y1 = decoded[image, output].tolist()
            overlaps = [0.0]
            for a0, b0, a1, b1 in own:
                both = max(0, min(x1, a1) - max(x0, a0)) * max(0, min(y1, b1) - max(y0, b0))
                overlaps.append(both / ((x1 - x0) * (y1 - y0) + (a1 - a0) * (b1 - b0) - both))
            if max(overlaps) <= 0.5:
                total -= log_not
    return total / len(raw)


def aimed_at(boxes, raw):
    """Outputs near the first box of their image become nearly that box: most of them are to be left alone."""
    first = torch.from_numpy(
        boxes.corners[[int(np.flatnonzero(boxes.image == i)[0]) for i in range(len(raw))]]
    ).float()
    centre = (first[:, :2] + first[:, 2:])[:, None] / 2
    raw = raw.clone()
    raw[..., :2] += torch.logit((centre / GRID.cell - GRID.place).clamp(0.02, 0.98))
    raw[..., 2:4] += ((first[:, 2:] - first[:, :2])[:, None] / GRID.anchor).log()
    return raw


@pytest.mark.parametrize("aimed", [False, True])
@pytest.mark.parametrize("seed", [0, 5])
def test_loss_is_that_of_a_loop_over_outputs(seed, aimed):
    boxes = random_boxes(seed, images=2)
    torch.manual_seed(seed)
    raw = torch.randn(2, len(GRID.place), 5) * 0.7
    if aimed:
        raw = aimed_at(boxes, raw * 0.1)
    corners, there = boxes.padded(np.arange(2))
    assert float(detection_loss(raw, corners, there, GRID)) == pytest.approx(slow_loss(raw, boxes), rel=1e-4)


def test_padding_and_neighbours_do_not_matter():
    boxes = random_boxes(1, images=4)
    torch.manual_seed(0)
    raw = torch.randn(4, len(GRID.place), 5)
    together = float(detection_loss(raw, *boxes.padded(np.arange(4)), GRID))
    alone = [float(detection_loss(raw[i : i + 1], *boxes.padded(np.array([i])), GRID)) for i in range(4)]
    assert together == pytest.approx(np.mean(alone), rel=1e-5)


def test_images_without_boxes_learn_that_there_is_nothing():
    empty = BoxList(3, np.zeros(0, dtype=np.intp), np.zeros((0, 4)))
    raw = torch.zeros(3, len(GRID.place), 5, requires_grad=True)
    loss = detection_loss(raw, *empty.padded(np.arange(3)), GRID)
    assert float(loss.detach()) == pytest.approx(len(GRID.place) * math.log(2), rel=1e-5)
    loss.backward()
    assert (raw.grad[..., 4] > 0).all()
    assert (raw.grad[..., :4] == 0).all()


def test_more_boxes_than_anyone_expected():
    boxes = random_boxes(2, images=3, most=400)
    loss = detection_loss(torch.zeros(3, len(GRID.place), 5), *boxes.padded(np.arange(3)), GRID)
    assert loss.isfinite()
