"""Detections: from outputs of the head, of a batch and of a whole split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cmcgns.evaluation.features import FrozenMaps
from cmcgns.evaluation.task_settings.learned import DetectionSettings
from cmcgns.evaluation.tasks.detection.boxes import AnchorGrid, BoxList
from cmcgns.evaluation.tasks.detection.head import Detector
from cmcgns.metrics.measure import Array

_TRIED = 1000


@dataclass(frozen=True)
class Detections:
    """Detections of a batch.

    Attributes:
        image: (m,) number in the batch, rising.
        boxes: (m, 4) x0, y0, x1, y1 in pixels.
        scores: (m,) float64 in [0, 1], falling within an image.
    """

    image: Tensor
    boxes: Tensor
    scores: Tensor


@torch.no_grad()
def detect(raw: Tensor, grid: AnchorGrid, floor: float, nms: float, most: int) -> Detections:
    """The best boxes of each image after non-maximum suppression.

    Args:
        raw: (B, N, 5) outputs.
        grid: of the outputs.
        floor: boxes of lower scores are left out; 0 keeps all.
        nms: a box that overlaps a better one by more is left out.
        most: how many boxes an image may have.
    """
    boxes = grid.decode(raw.float()).clamp(0, grid.size)
    logits = raw[..., 4].float()
    # Suppression goes from the best box down, so what the best 1000 come to does not depend on the rest, which
    # therefore matters only where the 1000 leave fewer boxes than are wanted.
    tried = min(_TRIED, logits.shape[1])
    found = _suppress(boxes, logits, tried, floor, nms, most)
    counts = torch.bincount(found.image, minlength=len(raw))
    untried = (logits.double().sigmoid() >= floor).sum(1) > tried
    if bool((untried & (counts < most)).any()):
        found = _suppress(boxes, logits, logits.shape[1], floor, nms, most)
    return found


def _suppress(boxes: Tensor, logits: Tensor, tried: int, floor: float, nms: float, most: int) -> Detections:
    """Boxes are ranked by logits: high scores round to ties."""
    from torchvision.ops import batched_nms

    logit, output = logits.topk(tried, dim=1)
    image = torch.arange(len(logits), device=logits.device)[:, None].expand_as(logit)
    box = boxes.gather(1, output[..., None].expand(-1, -1, 4))
    score = logit.double().sigmoid()
    high = score >= floor
    logit, score, image, box = logit[high], score[high], image[high], box[high]
    kept = batched_nms(box, logit, image, nms)  # by falling score
    kept = kept[image[kept].sort(stable=True).indices]
    counts = torch.bincount(image[kept], minlength=len(logits))
    rank = torch.arange(len(kept), device=kept.device) - (counts.cumsum(0) - counts)[image[kept]]
    kept = kept[rank < most]
    return Detections(image[kept], box[kept], score[kept])


@torch.no_grad()
def predict(
    detector: Detector,
    grid: AnchorGrid,
    maps: FrozenMaps,
    settings: DetectionSettings,
    progress: Callable[[str, float], None],
) -> dict[str, Array]:
    """Detections of every image, flat.

    Returns:
        `image` (m,) rising, `boxes` (m, 4) in pixels of the encoder's input, `scores` (m,) falling within an image.
    """
    parts = []
    for first in range(0, len(maps), settings.batch):
        last = min(first + settings.batch, len(maps))
        raw = detector(maps.read(np.arange(first, last)))
        found = detect(raw, grid, settings.confidence_floor, settings.nms, settings.max_detections)
        parts.append([each.cpu().numpy() for each in (found.image + first, found.boxes, found.scores)])
        progress("detecting", last / len(maps))
    return dict(zip(("image", "boxes", "scores"), map(np.concatenate, zip(*parts, strict=True)), strict=True))


def with_truth(found: Mapping[str, Array], truth: BoxList, settings: DetectionSettings) -> dict[str, Array]:
    """Detections together with the truth and with how they are to be judged: what a cell keeps."""
    return {
        **found,
        "truth_image": truth.image,
        "truth_boxes": truth.corners,
        "ious": np.array(settings.ious),
        "skip_empty": np.array(settings.skip_empty),
        "max_detections": np.array(settings.max_detections),
    }
