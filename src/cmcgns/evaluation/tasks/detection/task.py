"""Detection: a YOLOv3 head on the encoder's frozen maps; mean average precision with COCO's matching."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from cmcgns.common.errors import UserError
from cmcgns.evaluation.contract import Job, Predictions
from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.features import FrozenMaps
from cmcgns.evaluation.image_set import ImageSet
from cmcgns.evaluation.protocols import Cell
from cmcgns.evaluation.task_settings.base import PARTS
from cmcgns.evaluation.task_settings.learned import DetectionSettings
from cmcgns.evaluation.tasks.detection.boxes import AnchorGrid, BoxList, anchor_grid, read_boxes
from cmcgns.evaluation.tasks.detection.head import Detector, choose_maps, level_grids
from cmcgns.evaluation.tasks.detection.predict import predict, with_truth
from cmcgns.evaluation.tasks.detection.train import BoxSplit, DetectorHead
from cmcgns.evaluation.tasks.train_head import Trained, checkpoint_of, schedule_of, train_head
from cmcgns.metrics.detection import detection_measures
from cmcgns.metrics.measure import Array, Measures
from cmcgns.metrics.ranking import IntArray


class DetectionTask:
    """A detector for every fraction and seed."""

    def lacks(self, data: TaskData, encoder: FrozenEncoder) -> str:  # noqa: ARG002
        """Boxes are needed to train and to test."""
        if not data.frame["boxes"].str.strip().any():
            return "no boxes are annotated"
        return data.lacks_boxes(("train", "test"))

    def run(self, job: Job) -> Iterator[tuple[Cell, Predictions]]:
        """Predictions of every cell, each as soon as it is done."""
        settings = job.protocol.settings_as(DetectionSettings)
        splits = {part: _read_split(job, settings, part) for part in PARTS}
        for cell in job.cells:
            yield cell, _run_cell(job, settings, cell, splits)
            checkpoint_of(job, cell).unlink(missing_ok=True)

    def measures(self, predictions: Predictions) -> Measures:
        """See :func:`cmcgns.metrics.detection.detection_measures`."""
        return detection_measures(predictions.arrays, len(predictions.rows))


def _read_split(job: Job, settings: DetectionSettings, part: str) -> BoxSplit:
    """Maps and boxes of a split."""
    images: ImageSet = getattr(job.data, part)
    encoder, size = job.encoder, job.data.image_size
    boxes, limit = read_boxes(images, size), settings.cache_gib * 2**30

    def progress(text: str, share: float) -> None:
        job.progress(f"{part}: {text}", share)

    return BoxSplit(FrozenMaps(encoder, images.pixels, size, choose_maps(encoder), job.cache, limit, progress), boxes)


def _run_cell(job: Job, settings: DetectionSettings, cell: Cell, splits: dict[str, BoxSplit]) -> Predictions:
    """Train one detector and let it find boxes.

    Raises:
        UserError: no box in the fraction; names it.
    """
    started, seed = time.perf_counter(), cell.seed or 0
    whole = splits["train"]
    rows, boxes = _rows_to_learn(job, cell, whole.boxes)
    detector, grid = _build(whole.maps, settings, job.data.image_size, seed)
    head = DetectorHead(detector, grid, BoxSplit(whole.maps, boxes), rows, splits["val"], settings, seed)
    trained = train_head(head, schedule_of(job, cell, settings.epochs, settings.patience, settings.choose_by))

    def progress(text: str, share: float) -> None:
        job.progress(f"{cell.name}: {text}", share)

    found = predict(detector, grid, splits["test"].maps, settings, progress)
    arrays = with_truth(found, splits["test"].boxes, settings)
    facts = _training_facts(rows, whole.boxes, boxes, trained) | _test_facts(splits, arrays, settings)
    facts["seconds"] = round(time.perf_counter() - started, 2)
    return job.predictions(arrays, facts)


def _training_facts(rows: IntArray, all_boxes: BoxList, seen: BoxList, trained: Trained) -> dict[str, Any]:
    return {
        "training_images": len(rows),
        "training_images_with_box": int(seen.has_box[rows].sum()),
        "training_boxes": int(seen.counts[rows].sum()),
        "training_boxes_outside_crop": int((all_boxes.counts - seen.counts)[rows].sum()),
        "epochs": trained.epochs,
        "best_epoch": trained.best_epoch,
        "best_validation": abs(trained.best),
    }


def _test_facts(splits: dict[str, BoxSplit], arrays: dict[str, Array], settings: DetectionSettings) -> dict[str, Any]:
    test = splits["test"].boxes
    floor = f"scores of {settings.confidence_floor:g} or more" if settings.confidence_floor else "no confidence floor"
    skipped = "; images without a detection or without a box are left out" if settings.skip_empty else ""
    rules = f"at most {settings.max_detections} an image, overlapping by up to {settings.nms:g}{skipped}"
    return {
        "test_boxes": len(test.image),
        "test_boxes_cut_by_crop": test.beyond(splits["test"].maps.size),
        "test_images_without_box": int((~test.has_box).sum()),
        "test_images_without_detection": test.images - len(np.unique(arrays["image"])),
        "detections": f"{floor}, {rules}",
        "maps_bytes": sum(split.maps.bytes for split in splits.values()),
        "maps_kept_on_disk": all(split.maps.kept for split in splits.values()),
    }


def _rows_to_learn(job: Job, cell: Cell, all_boxes: BoxList) -> tuple[IntArray, BoxList]:
    """Rows of the fraction, and what the encoder sees of the training boxes."""
    rows = job.data.fraction_rows(cell, strata=all_boxes.has_box[:, None].astype(np.float64))
    boxes = all_boxes.cut(job.data.image_size)
    if not boxes.has_box[rows].any():
        raise UserError(
            f"{job.data.name}: none of the {len(rows)} training images of fraction {cell.fraction:g} % "
            f"(seed {cell.seed}) has a box: choose a larger fraction"
        )
    return rows, boxes


def _build(maps: FrozenMaps, settings: DetectionSettings, size: int, seed: int) -> tuple[Detector, AnchorGrid]:
    """A fresh detector; equal seeds give equal weights, and nobody else's random numbers change."""
    device = maps.encoder.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        detector = Detector([shape[0] for shape in maps.shapes], settings.head_width).to(device)
    grids = level_grids(detector, maps.read(np.arange(1)))
    with device:
        return detector, anchor_grid(grids, size)


TASK = DetectionTask()
