"""Detections of a whole split."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from cmcgns.evaluation.contract import Array
from cmcgns.evaluation.detection.anchors import AnchorGrid
from cmcgns.evaluation.detection.decode import detect
from cmcgns.evaluation.detection.maps import FrozenMaps
from cmcgns.evaluation.detection.pyramid import Detector
from cmcgns.evaluation.detection.settings import DetectionSettings


@torch.no_grad()
def predict(
    detector: Detector,
    grid: AnchorGrid,
    maps: FrozenMaps,
    settings: DetectionSettings,
    progress: Callable[[str, float], None],
) -> dict[str, Array]:
    """Detections of every image, flat.

    Args:
        detector: in eval mode.
        grid: of its outputs.
        maps: of n images.
        settings: confidence floor, suppression, how many.
        progress: told how many images are done.

    Returns:
        `image` (m,) rising, `boxes` (m, 4) in pixels of the encoder's input, `scores` (m,) falling within an image.
    """
    image, boxes, scores = [], [], []
    for first in range(0, len(maps), settings.batch):
        last = min(first + settings.batch, len(maps))
        raw = detector(maps.read(np.arange(first, last)))
        found = detect(raw, grid, settings.confidence_floor, settings.nms, settings.max_detections)
        image.append(found.image.cpu().numpy() + first)
        boxes.append(found.boxes.cpu().numpy())
        scores.append(found.scores.cpu().numpy())
        progress("detecting", last / len(maps))
    return {"image": np.concatenate(image), "boxes": np.concatenate(boxes), "scores": np.concatenate(scores)}
