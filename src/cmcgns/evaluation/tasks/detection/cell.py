"""One cell: a detector is trained on a fraction of the images and finds boxes in all test images."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cmcgns.common.errors import UserError
from cmcgns.evaluation.contract import Job, Predictions
from cmcgns.evaluation.image_set import ImageSet
from cmcgns.evaluation.protocols import Cell
from cmcgns.evaluation.protocols.task_settings import DetectionSettings
from cmcgns.evaluation.tasks.detection.anchors import AnchorGrid, anchor_grid
from cmcgns.evaluation.tasks.detection.boxes import BoxList, read_boxes
from cmcgns.evaluation.tasks.detection.head import Detector, choose_maps, level_grids
from cmcgns.evaluation.tasks.detection.library import check_against_library
from cmcgns.evaluation.tasks.detection.maps import FrozenMaps
from cmcgns.evaluation.tasks.detection.predict import predict
from cmcgns.evaluation.tasks.detection.train import Criterion, Trained, TrainingOptions, train, validation_loss
from cmcgns.metrics.detection import Figures, RankedDetections, match
from cmcgns.metrics.measure import Array
from cmcgns.metrics.ranking import IntArray


@dataclass(frozen=True)
class Split:
    """Maps and boxes of training, validation or test."""

    maps: FrozenMaps
    boxes: BoxList


def read_split(job: Job, settings: DetectionSettings, part: str) -> Split:
    """Maps and boxes of a split."""
    images: ImageSet = getattr(job.data, part)
    encoder, size = job.encoder.to(job.device), job.data.image_size
    boxes = read_boxes(images, size)
    limit = settings.cache_gib * 2**30

    def progress(text: str, share: float) -> None:
        job.progress(f"{part}: {text}", share)

    return Split(FrozenMaps(encoder, images.pixels, size, choose_maps(encoder), job.cache, limit, progress), boxes)


def run_cell(job: Job, settings: DetectionSettings, cell: Cell, splits: dict[str, Split]) -> Predictions:
    """Train one detector and let it find boxes.

    Raises:
        UserError: no box in the fraction; names it.
    """
    started, seed = time.perf_counter(), cell.seed or 0
    rows, boxes = _rows_to_learn(job, cell, splits["train"].boxes)
    detector, grid = _build(splits["train"].maps, settings, job.data.image_size, seed)
    options = TrainingOptions(
        settings.epochs, settings.patience, settings.batch, settings.learning_rate, settings.weight_decay, seed
    )
    checkpoint = job.scratch / cell.name / "detector.pt"

    def progress(text: str, share: float) -> None:
        job.progress(f"{cell.name}: {text}", share)

    trained = train(
        detector,
        grid,
        splits["train"].maps,
        boxes,
        rows,
        _criterion(splits["val"], grid, settings),
        options,
        checkpoint,
        _key(job),
        progress,
    )
    arrays = judged(predict(detector, grid, splits["test"].maps, settings, progress), splits["test"].boxes, settings)
    facts = _training_facts(rows, splits["train"].boxes, boxes, trained) | _test_facts(splits, arrays, settings)
    images = len(job.data.test)
    ours = float(Judged(arrays, images).figures(np.ones((1, images))).precision.mean())
    facts["map_by_torchmetrics"] = check_against_library(ours, arrays, images)
    if checkpoint.is_file():  # not before the check: a trained head is not to be lost
        checkpoint.unlink()
        checkpoint.parent.rmdir()
    facts["seconds"] = round(time.perf_counter() - started, 2)
    test = job.data.test
    return Predictions(test.names, test.patients.astype(str), arrays, facts)


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


def _test_facts(splits: dict[str, Split], arrays: dict[str, Array], settings: DetectionSettings) -> dict[str, Any]:
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
    return detector, anchor_grid(grids, size).to(device)


def _criterion(split: Split, grid: AnchorGrid, settings: DetectionSettings) -> Criterion:
    """Validation loss, or mean average precision with its sign turned."""
    if settings.choose_by == "loss":
        return validation_loss(split.maps, split.boxes.cut(grid.size), grid, settings.batch)
    if not split.boxes.has_box.any():
        raise UserError("choose_by: map needs boxes among the validation images, which have none: use loss")

    def minus_map(detector: Detector) -> float:
        found = predict(detector, grid, split.maps, settings, lambda _text, _share: None)
        figures = Judged(judged(found, split.boxes, settings), len(split.maps)).figures(np.ones((1, len(split.maps))))
        return -float(np.nan_to_num(figures.precision).mean())

    return minus_map


def _key(job: Job) -> str:
    """What a training depends on, besides fraction and seed."""
    parts = (job.encoder.features_sha256, job.data.content_sha256, job.settings.model_dump_json())
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def judged(found: Mapping[str, Array], truth: BoxList, settings: DetectionSettings) -> dict[str, Array]:
    """Detections together with the truth and with how they are to be judged: what a cell keeps."""
    return {
        **found,
        "truth_image": truth.image,
        "truth_boxes": truth.corners,
        "ious": np.array(settings.ious),
        "skip_empty": np.array(settings.skip_empty),
        "max_detections": np.array(settings.max_detections),
    }


class Judged:
    """Matched detections of n images.

    Args:
        arrays: of :func:`judged`.
        images: n.

    Attributes:
        ious: the thresholds.
    """

    def __init__(self, arrays: Mapping[str, Array], images: int) -> None:
        image, truth_image = arrays["image"], arrays["truth_image"]
        self.ious = [float(value) for value in arrays["ious"]]
        hits = match(image, arrays["boxes"], truth_image, arrays["truth_boxes"], self.ious)
        truths = np.bincount(truth_image, minlength=images)
        self._ranked = RankedDetections(image, arrays["scores"], hits, truths)
        filled = (truths > 0) & (np.bincount(image, minlength=images) > 0)
        self._counted = np.where(filled | ~arrays["skip_empty"], 1.0, 0.0)

    def figures(self, counts: npt.NDArray[np.generic]) -> Figures:
        """Figures of resamples from how often (R, n) each image was drawn."""
        return self._ranked.figures(counts.astype(np.float64) * self._counted)

    def place(self, iou: float) -> int | None:
        """Position of a threshold, if it is one."""
        near = np.flatnonzero(np.isclose(self.ious, iou))
        return int(near[0]) if len(near) else None


_NAMED = {0.4: "ap40", 0.5: "ap50", 0.75: "ap75"}


_FREE_RESPONSE = 0.5  # intersection over union at which false alarms are counted
