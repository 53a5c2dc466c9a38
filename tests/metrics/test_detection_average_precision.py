"""Matching and average precision agree with COCO's own programs, and weights mean repeated images."""

import numpy as np
import pytest
import torch
from torchmetrics.detection import MeanAveragePrecision

from cmcgns.metrics.detection import RECALLS, RankedDetections, match

IOUS = [0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75]


def scene(seed, images=30, most_boxes=4, most_found=12, levels=None, noise=0.15):
    """Boxes, and detections that are displaced boxes or inventions; some images have none of either."""
    rng = np.random.default_rng(seed)
    truth, found, scores = [], [], []
    for _ in range(images):
        low = rng.uniform(0, 60, (rng.integers(0, most_boxes + 1), 2))
        boxes = np.concatenate([low, low + rng.uniform(5, 40, low.shape)], axis=1)
        count = int(rng.integers(0, most_found + 1))
        low = rng.uniform(0, 60, (count, 2))
        guess = np.concatenate([low, low + rng.uniform(5, 40, low.shape)], axis=1)
        if len(boxes):
            copied = rng.random(count) < 0.6
            source = boxes[rng.integers(0, len(boxes), count)]
            guess[copied] = (source + rng.normal(0, noise, source.shape) * 20)[copied]
            guess[:, 2:] = np.maximum(guess[:, 2:], guess[:, :2] + 1)
        score = np.sort(rng.random(count))[::-1]
        if levels:
            score = np.round(score * levels) / levels
        truth.append(boxes.astype(np.float32))
        found.append(guess.astype(np.float32))
        scores.append(score.astype(np.float32))
    return truth, found, scores


def flat(truth, found, scores):
    image, truth_image = (np.repeat(np.arange(len(each)), [len(b) for b in each]) for each in (found, truth))
    boxes, truths = (np.concatenate([np.zeros((0, 4), np.float32), *each]) for each in (found, truth))
    hits = match(image, boxes, truth_image, truths, IOUS)
    return RankedDetections(image, np.concatenate(scores), hits, np.bincount(truth_image, minlength=len(truth)))


def of_library(truth, found, scores, backend):
    metric = MeanAveragePrecision(
        iou_thresholds=IOUS, rec_thresholds=RECALLS.tolist(), backend=backend, extended_summary=True
    )
    metric.warn_on_many_detections = False
    for boxes, guess, score in zip(truth, found, scores, strict=True):
        labels = torch.zeros(len(score), dtype=torch.long)
        metric.update(
            [{"boxes": torch.from_numpy(guess), "scores": torch.from_numpy(score.copy()), "labels": labels}],
            [{"boxes": torch.from_numpy(boxes), "labels": torch.zeros(len(boxes), dtype=torch.long)}],
        )
    result = metric.compute()
    # (thresholds, recalls, classes, areas, numbers of detections)
    return result["precision"][:, :, 0, 0, -1].mean(1).numpy(), float(result["map"]), float(result["mar_100"])


SCENES = {
    "usual": {},
    "ties": {"levels": 3},
    "crowded": {"images": 4, "most_boxes": 25, "most_found": 100, "noise": 0.05},
    "one image": {"images": 1, "most_boxes": 6, "most_found": 40},
    "more detections than boxes": {"most_boxes": 1, "most_found": 60},
    "no detections": {"most_found": 0},
}


@pytest.mark.parametrize("backend", ["faster_coco_eval", "pycocotools"])
@pytest.mark.parametrize("name", SCENES)
def test_it_is_what_the_libraries_say(name, backend):
    pytest.importorskip(backend)
    for seed in range(3 + (name == "one image")):
        content = scene(seed, **SCENES[name])
        if not any(len(boxes) for boxes in content[0]):
            continue
        precision, mean, recall = of_library(*content, backend)
        figures = flat(*content).figures(np.ones((1, len(content[0]))))
        assert figures.precision[0] == pytest.approx(precision, abs=1e-6)
        assert figures.precision.mean() == pytest.approx(mean, abs=1e-6)
        assert figures.recall.mean() == pytest.approx(recall, abs=1e-6)


def test_a_hundred_matches_need_no_luck():
    truth, _, _ = scene(5, images=40)
    oracle = flat(truth, truth, [np.full(len(boxes), 0.9, np.float32) for boxes in truth])
    figures = oracle.figures(np.ones((1, 40)))
    assert figures.precision.min() == figures.recall.min() == figures.sensitivity.min() == 1
    elsewhere = truth[1:] + truth[:1]
    shuffled = flat(truth, elsewhere, [np.full(len(boxes), 0.9, np.float32) for boxes in elsewhere])
    assert shuffled.figures(np.ones((1, 40))).precision.mean() < 0.05


def test_a_weight_is_a_repeated_image():
    truth, found, scores = scene(1, images=25)
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 4, (6, 25))
    weighted = flat(truth, found, scores).figures(counts)
    for row, count in enumerate(counts):
        again = [[part[i] for i in np.repeat(np.arange(25), count)] for part in (truth, found, scores)]
        once = flat(*again).figures(np.ones((1, count.sum())))
        for name in ("precision", "recall", "sensitivity"):
            assert getattr(weighted, name)[row] == pytest.approx(getattr(once, name)[0], abs=1e-12)


def test_weights_have_no_scale_and_chunks_leave_no_trace():
    content = scene(2)
    ranked = flat(*content)
    counts = np.random.default_rng(1).integers(0, 3, (300, 30))
    together = ranked.figures(counts)
    assert ranked.figures(counts * 2.5).precision == pytest.approx(together.precision, abs=1e-12)
    alone = np.concatenate([ranked.figures(row[None]).precision for row in counts[::50]])
    assert together.precision[::50] == pytest.approx(alone, abs=1e-12)


def test_false_alarms_on_images_without_boxes_count():
    box = np.array([[0, 0, 10, 10]], np.float32)
    nothing = np.zeros((0, 4), np.float32)
    quiet = flat([box, nothing], [box, nothing], [np.array([0.5], np.float32), np.zeros(0, np.float32)])
    loud = flat([box, nothing], [box, box], [np.array([0.5], np.float32), np.array([0.9], np.float32)])
    both = np.ones((1, 2))
    assert quiet.figures(both).precision == pytest.approx(1)
    assert loud.figures(both).precision == pytest.approx(0.5)
    assert loud.figures(np.array([[1, 0]])).precision == pytest.approx(1)  # a subgroup without the loud image
    assert np.isnan(loud.figures(np.array([[0, 1]])).precision).all()  # no box is left


def test_misses_on_images_without_detections_count():
    box = np.array([[0, 0, 10, 10]], np.float32)
    nothing = np.zeros((0, 4), np.float32)
    half = flat([box, box], [box, nothing], [np.array([0.5], np.float32), np.zeros(0, np.float32)])
    figures = half.figures(np.ones((1, 2)))
    assert figures.recall == pytest.approx(0.5)
    assert figures.precision == pytest.approx(51 / 101)


def slow_sensitivity(truth, found, scores, iou):
    """Best recall among score thresholds with at most one false alarm an image."""
    hits = match(
        np.repeat(np.arange(len(found)), [len(b) for b in found]), np.concatenate(found),
        np.repeat(np.arange(len(truth)), [len(b) for b in truth]), np.concatenate(truth), [iou],
    )[0]  # fmt: skip
    score = np.concatenate(scores)
    allowed = [t for t in score if ((score >= t) & ~hits).sum() <= len(truth)]
    return max([0, *(((score >= t) & hits).sum() for t in allowed)]) / sum(len(b) for b in truth)


@pytest.mark.parametrize("seed", range(4))
def test_sensitivity_at_one_false_alarm_an_image(seed):
    content = scene(seed, images=12, most_found=30)
    figures = flat(*content).figures(np.ones((1, 12)))
    expected = [slow_sensitivity(*content, iou) for iou in IOUS]
    assert figures.sensitivity[0] == pytest.approx(expected)


def test_matching_is_greedy_by_score_and_takes_the_best_free_box():
    truth = np.array([[0, 0, 10, 10], [1, 0, 11, 10]], np.float64)
    found = np.array([[1, 0, 11, 10], [1, 0, 11, 10], [1, 0, 11, 10]], np.float64)
    hits = match(np.zeros(3, int), found, np.zeros(2, int), truth, [0.5, 0.9, 1.0])
    assert hits.tolist() == [[True, True, False], [True, False, False], [True, False, False]]
    nothing = match(np.zeros(0, int), np.zeros((0, 4)), np.zeros(2, int), truth, [0.5])
    assert nothing.shape == (1, 0)
    flat_boxes = np.array([[5, 5, 5, 5]], np.float64)
    assert not match(np.zeros(1, int), flat_boxes, np.zeros(1, int), flat_boxes, [0.5]).any()
