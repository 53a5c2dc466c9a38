"""Every cell is checked against torchmetrics: a figure that is not its figure stops the cell."""

import numpy as np
import pytest

from cmcgns.evaluation.tasks.detection.cell import Judged
from cmcgns.evaluation.tasks.detection.library import check_against_library, library_map

IMAGES = 20


def arrays(skip_empty: bool) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    image = np.repeat(np.arange(0, IMAGES, 2), 5)  # every other image has no detection
    truth_image = np.repeat(np.arange(0, IMAGES, 3), 2)
    corner = rng.uniform(0, 40, (len(truth_image), 2))
    truth = np.concatenate([corner, corner + 20], axis=1).astype(np.float32)
    guess = np.tile(truth[:1], (len(image), 1))
    for number, place in enumerate(image):
        own = np.flatnonzero(truth_image == place)
        if len(own):
            guess[number] = truth[own[number % len(own)]] + rng.normal(0, 4, 4).astype(np.float32)
    scores = -np.sort(-rng.random((IMAGES // 2, 5)), axis=1).ravel().astype(np.float32)  # within an image falling
    return {
        "image": image, "scores": scores, "boxes": guess,
        "truth_image": truth_image, "truth_boxes": truth, "ious": np.array([0.4, 0.5, 0.6]),
        "skip_empty": np.array(skip_empty), "max_detections": np.array(100),
    }  # fmt: skip


@pytest.mark.parametrize("skip_empty", [False, True])
def test_the_whole_test_sets_figure_is_torchmetrics(skip_empty: bool) -> None:
    found = arrays(skip_empty)
    ours = float(Judged(found, IMAGES).figures(np.ones((1, IMAGES))).precision.mean())
    assert 0.05 < ours < 0.95
    assert check_against_library(ours, found, IMAGES) == pytest.approx(ours, abs=1e-6)
    with pytest.raises(RuntimeError, match="by torchmetrics"):
        check_against_library(ours + 1e-3, found, IMAGES)


def test_skipping_images_flatters() -> None:
    """Pitfall: images without predictions skipped."""
    assert library_map(arrays(True), IMAGES) > library_map(arrays(False), IMAGES)
