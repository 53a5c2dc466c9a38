"""Mean average precision of a cell is torchmetrics' (COCO's matching, faster-coco-eval), of any detections."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torchmetrics.detection import MeanAveragePrecision

from cmcgns.evaluation.task_settings.learned import DetectionSettings
from cmcgns.evaluation.tasks.detection.boxes import BoxList
from cmcgns.evaluation.tasks.detection.predict import with_truth
from cmcgns.metrics.detection import RECALLS, MatchedDetections
from cmcgns.metrics.measure import Array


def boxes(corners: Array) -> dict[str, torch.Tensor]:
    labels = torch.zeros(len(corners), dtype=torch.long)
    return {"boxes": torch.from_numpy(np.asarray(corners, dtype=np.float32)).reshape(-1, 4), "labels": labels}


def library_map(arrays: Mapping[str, Array], images: int) -> float:
    """Mean average precision, images that do not count left out; -1 where it is undefined."""
    metric = MeanAveragePrecision(
        iou_thresholds=[float(iou) for iou in arrays["ious"]],
        rec_thresholds=RECALLS.tolist(),
        max_detection_thresholds=[1, 10, int(arrays["max_detections"])],
        backend="faster_coco_eval",
    )
    metric.warn_on_many_detections = False
    counted = 0
    for image in range(images):
        found, truth = arrays["image"] == image, arrays["truth_image"] == image
        if arrays["skip_empty"] and not (found.any() and truth.any()):
            continue
        scores = torch.from_numpy(arrays["scores"][found])
        metric.update([{"scores": scores, **boxes(arrays["boxes"][found])}], [boxes(arrays["truth_boxes"][truth])])
        counted += 1
    return float(metric.compute()["map"]) if counted else -1.0


def cell(
    seed: int, images: int, most_boxes: int, most_found: int, noise: float, levels: int, settings: DetectionSettings
) -> dict[str, Array]:
    """Boxes and detections near them or anywhere, some images without the one, the other or both."""
    rng = np.random.default_rng(seed)
    image, found, scores, truth_image, truth = [], [], [], [], []
    for number in range(images):
        corner = rng.uniform(0, 40, (rng.integers(0, most_boxes + 1), 2))
        own = np.concatenate([corner, corner + rng.uniform(4, 25, corner.shape)], axis=1)
        count = int(rng.integers(0, most_found + 1)) * int(rng.random() > 0.2)
        guess = rng.uniform(0, 40, (count, 4))
        guess[:, 2:] = guess[:, :2] + rng.uniform(4, 25, (count, 2))
        near = rng.random(count) < 0.6
        if len(own):
            guess[near] = own[rng.integers(0, len(own), near.sum())] + rng.normal(0, noise, (near.sum(), 4))
        guess[:, 2:] = np.maximum(guess[:, 2:], guess[:, :2] + 1)  # no box is inside out
        image += [number] * count
        found.append(guess)
        rank = rng.random(count) if levels == 0 else rng.integers(1, levels + 1, count) / (levels + 1)
        scores.append(-np.sort(-rank))  # falling within an image, with or without ties
        truth_image += [number] * len(own)
        truth.append(own)
    detections = {
        "image": np.array(image, dtype=np.intp),
        "boxes": np.concatenate(found).astype(np.float32),
        "scores": np.concatenate(scores),
    }
    corners = np.concatenate(truth).astype(np.float32)
    return with_truth(detections, BoxList(images, np.array(truth_image, dtype=np.intp), corners), settings)


SCENES = {
    "usual": (20, 3, 6, 2.0, 0),
    "ties": (20, 3, 6, 2.0, 3),
    "crowded": (5, 15, 60, 1.0, 0),
    "one image": (1, 5, 30, 3.0, 0),
    "few boxes": (25, 1, 8, 1.0, 0),
    "most images empty": (30, 1, 1, 1.0, 0),
}
THRESHOLDS = {
    "of the protocols": {},
    "coarse": {"ious": [0.1, 0.3]},
    "one": {"ious": [0.5]},
    "of COCO": {"ious": [round(0.5 + 0.05 * step, 2) for step in range(10)]},
}


@pytest.mark.parametrize("skip_empty", [False, True])
@pytest.mark.parametrize("thresholds", THRESHOLDS)
@pytest.mark.parametrize("scene", SCENES)
def test_the_figure_of_a_whole_test_set_is_torchmetrics(scene: str, thresholds: str, skip_empty: bool) -> None:
    settings = DetectionSettings(skip_empty=skip_empty, **THRESHOLDS[thresholds])
    images, defined = SCENES[scene][0], 0
    for seed in range(4):
        arrays = cell(seed, *SCENES[scene], settings)
        ours = float(MatchedDetections(arrays, images).figures(np.ones((1, images))).precision.mean())
        theirs = library_map(arrays, images)
        if theirs < 0:  # no box counts
            assert np.isnan(ours)
            continue
        assert ours == pytest.approx(theirs, abs=1e-5)
        defined += 1
    assert defined


def test_skipping_images_flatters() -> None:
    """Pitfall: images without predictions skipped."""
    every, some = (
        cell(1, 20, 2, 5, 4.0, 0, DetectionSettings(ious=[0.4, 0.5, 0.6], skip_empty=skip)) for skip in (False, True)
    )
    assert library_map(some, 20) > library_map(every, 20)
    whole, left = (
        MatchedDetections(arrays, 20).figures(np.ones((1, 20))).precision.mean() for arrays in (every, some)
    )
    assert left > whole
