"""Training of a detector on frozen maps: the loss of YOLOv3's head, and the validation figure that stops it.

Redmon and Farhadi, YOLOv3: An Incremental Improvement, 2018, sections 2.1 and 2.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cmcgns.common.errors import UserError
from cmcgns.evaluation.features import FrozenMaps
from cmcgns.evaluation.task_settings.learned import DetectionSettings
from cmcgns.evaluation.tasks.detection.boxes import AnchorGrid, BoxList, assign
from cmcgns.evaluation.tasks.detection.head import Detector
from cmcgns.evaluation.tasks.detection.predict import predict, with_truth
from cmcgns.evaluation.tasks.train_head import Head, even_batches
from cmcgns.metrics.detection import MatchedDetections, box_iou
from cmcgns.metrics.ranking import IntArray

_IGNORED_ABOVE = 0.5


def detection_loss(raw: Tensor, boxes: Tensor, there: Tensor, grid: AnchorGrid) -> Tensor:
    """Box and objectness loss, the mean over images of the sum over outputs.

    An output that answers for a box learns its place and size, small boxes weighing up to twice as much as large
    ones, and objectness 1. All others learn objectness 0, save those that overlap a box by more than 0.5.

    Args:
        raw: (B, N, 5) outputs: x, y, width, height, objectness.
        boxes: (B, K, 4) x0, y0, x1, y1 in pixels, within the image.
        there: (B, K) whether there is a box.
        grid: of the outputs.

    Returns:
        Scalar.
    """
    target = assign(boxes, there, grid)
    answering = raw[target.image, target.output]
    weight = (2 - target.area)[:, None]
    place = functional.binary_cross_entropy_with_logits(answering[:, :2], target.offset, weight, reduction="sum")
    size = (weight * (answering[:, 2:4] - target.log_size) ** 2).sum() / 2
    with torch.no_grad():
        overlap = box_iou(grid.decode(raw.detach().float()), boxes)  # places without a box have no area, so 0
        counts = (overlap.amax(2) <= _IGNORED_ABOVE).float()
        truth = torch.zeros_like(counts)
        counts[target.image, target.output] = 1
        truth[target.image, target.output] = 1
    objectness = functional.binary_cross_entropy_with_logits(raw[..., 4], truth, counts, reduction="sum")
    return (place + size + objectness) / len(raw)


@dataclass(frozen=True)
class BoxSplit:
    """Maps and boxes of training, validation or test."""

    maps: FrozenMaps
    boxes: BoxList


class DetectorHead(Head[IntArray]):
    """A detector on the frozen maps.

    Raises:
        UserError: mean average precision is to choose, but no validation image has a box.
    """

    def __init__(
        self,
        detector: Detector,
        grid: AnchorGrid,
        train: BoxSplit,
        rows: IntArray,
        val: BoxSplit,
        settings: DetectionSettings,
        seed: int,
    ) -> None:
        rate, decay = settings.learning_rate, settings.weight_decay
        optimizer = torch.optim.AdamW(detector.parameters(), lr=rate, weight_decay=decay)
        super().__init__(detector, optimizer, f"settings.learning_rate than {rate:g}")
        self.detector, self.grid, self.settings, self.seed = detector, grid, settings, seed
        self.train, self.rows, self.val = train, rows, val
        self.val_cut = BoxSplit(val.maps, val.boxes.cut(grid.size))
        if settings.choose_by == "map" and not val.boxes.has_box.any():
            raise UserError("choose_by: map needs boxes among the validation images, which have none: use loss")

    def batches(self, epoch: int) -> list[IntArray]:
        """Rows of a batch each."""
        return even_batches(self.rows, self.settings.batch, self.seed, epoch)

    def loss(self, batch: IntArray) -> Tensor:
        """Loss of some training images."""
        return self._loss(self.train, batch)

    def validate(self) -> float:
        """The mean loss over all validation images, or mean average precision with its sign turned."""
        images, batch = len(self.val.maps), self.settings.batch
        if self.settings.choose_by == "map":
            found = predict(self.detector, self.grid, self.val.maps, self.settings, lambda _text, _share: None)
            matched = MatchedDetections(with_truth(found, self.val.boxes, self.settings), images)
            return -float(np.nan_to_num(matched.figures(np.ones((1, images))).precision).mean())
        total = 0.0
        for first in range(0, images, batch):
            rows = np.arange(first, min(first + batch, images))
            total += float(self._loss(self.val_cut, rows)) * len(rows)
        return total / images

    def _loss(self, split: BoxSplit, rows: IntArray) -> Tensor:
        raw = self.detector(split.maps.read(rows))
        corners, there = (each.to(raw.device) for each in split.boxes.padded(rows))
        return detection_loss(raw, corners, there, self.grid)
