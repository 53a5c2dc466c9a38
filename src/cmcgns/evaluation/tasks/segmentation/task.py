"""Segmentation: a decoder learns to draw masks from a frozen encoder's maps."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import ClassVar, cast

import numpy as np

from cmcgns.common.errors import UserError
from cmcgns.evaluation.contract import Job, Predictions
from cmcgns.evaluation.data import PARTS, TaskData
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.image_set import ImageSet
from cmcgns.evaluation.protocols import Cell
from cmcgns.evaluation.protocols.task_settings import SegmentationSettings
from cmcgns.evaluation.tasks.segmentation.decoders import build_decoder, decoder_name
from cmcgns.evaluation.tasks.segmentation.maps import MapStore, Part, read_targets
from cmcgns.evaluation.tasks.segmentation.sampling import epoch_rows
from cmcgns.evaluation.tasks.segmentation.train import Judged, Lesson, fit, judge
from cmcgns.metrics.measure import Measures
from cmcgns.metrics.overlap import overlap_measures
from cmcgns.settings.config import Settings


class Segmentation:
    """Dice and IoU of images with a mask, and of all images."""

    settings: ClassVar[type[Settings]] = SegmentationSettings
    learns: ClassVar[bool] = True

    def lacks(self, data: TaskData, encoder: FrozenEncoder) -> str:
        """Why this task cannot be done; empty if it can."""
        del encoder  # any that gives maps will do
        settings = SegmentationSettings.model_validate(data.protocol.settings)
        column, sign = ("mask_path", "") if settings.target == "masks" else ("boxes", "[]")
        for part in ("train", "test"):
            stated = data.frame.loc[data.frame["part"] == part, column]
            if not (~stated.isin(["", sign])).any():
                return f"no image of {part} has {settings.target} (column {column})"
        return ""

    def run(self, job: Job) -> Iterator[tuple[Cell, Predictions]]:
        """Train one decoder a cell and let it draw on the test images."""
        settings = cast(SegmentationSettings, job.settings)
        job.progress("reading what is to be drawn", 0.0)
        parts = {name: _part(job, settings, name) for name in PARTS}
        store = MapStore(job.encoder, settings.cache_limit, settings.batch_size)
        for number, cell in enumerate(job.cells):
            lesson = _lesson(job, settings, store, parts, cell)
            yield cell, _run_cell(job, lesson, parts["test"], number)
            lesson.checkpoint.unlink(missing_ok=True)

    def measures(self, predictions: Predictions) -> Measures:
        """Figures of one cell."""
        arrays = predictions.arrays
        return overlap_measures(arrays["intersection"], arrays["predicted"], arrays["truth"])


def _part(job: Job, settings: SegmentationSettings, name: str) -> Part:
    images: ImageSet = getattr(job.data, name)
    targets = read_targets(images, settings.target, job.encoder.image_size)
    if not len(targets.masks) and name != "val":
        raise UserError(
            f"{job.data.folder}: {settings.target} of {name} have not a single pixel inside (a mask is 255 inside)"
        )
    return Part(name, images, targets)


def _lesson(job: Job, settings: SegmentationSettings, store: MapStore, parts: dict[str, Part], cell: Cell) -> Lesson:
    """What the cell learns from; its maps are computed now if they can be kept."""
    strata = parts["train"].targets.positive[:, None].astype(np.float64)
    rows = job.data.fraction_rows(cell, strata)
    if not strata[rows].any():
        raise UserError(f"{job.protocol.id}, {cell.name}: none of the {len(rows)} training images has a mask")
    about = [
        job.protocol.sha256,
        job.data.split_sha256,
        job.encoder.features_sha256,
        cell.name,
        settings.model_dump(),
    ]
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    job.progress(f"{cell.name}: computing maps", job.cells.index(cell) / len(job.cells))
    if settings.augment_share == 0:
        shown = rows
        if settings.balance == "once":
            shown = np.sort(epoch_rows(rows, strata[:, 0] > 0, "once", cell.seed or 0, 0))
        store.keep(parts["train"], shown)
    store.keep(parts["val"], np.arange(len(parts["val"].images)))
    if len(job.cells) > 1:
        store.keep(parts["test"], np.arange(len(parts["test"].images)))
    checkpoint = job.scratch / f"{cell.name}.pt"
    return Lesson(store, parts["train"], rows, parts["val"], settings, cell.seed or 0, checkpoint, key)


def _run_cell(job: Job, lesson: Lesson, test: Part, number: int) -> Predictions:
    cell, settings = job.cells[number], lesson.settings

    def progress(epoch: int, score: float) -> None:
        text = f"{cell.name}: epoch {epoch} of at most {settings.epochs}, validation {settings.stop_on} {score:.4f}"
        job.progress(text, (number + epoch / settings.epochs) / len(job.cells))

    decoder = build_decoder(job.encoder, settings, lesson.seed)
    course = fit(decoder, lesson, progress)
    began = time.monotonic()
    judged = judge(decoder, lesson.store, test, np.arange(len(test.images)), settings)
    job.encoder.check_unchanged()
    positive = lesson.train.targets.positive[lesson.rows]
    facts = {
        "decoder": decoder_name(job.encoder, settings),
        "decoder_parameters": sum(parameter.numel() for parameter in decoder.parameters()),
        **{name: round(value, 6) for name, value in asdict(course).items()},
        "test_seconds": round(time.monotonic() - began, 2),
        "train_images_with_mask": int(positive.sum()),
        "train_images_without_mask": int((~positive).sum()),
        "images_with_maps_kept": lesson.store.kept,
        "bytes_of_maps_an_image": lesson.store.image_bytes,
        "share_of_test_masks_cut_off_by_the_crop": test.targets.outside,
        "image_size": job.encoder.image_size,
    }
    return Predictions(test.images.names, test.images.patients.astype(str), _arrays(judged), facts)


def _arrays(judged: Judged) -> dict[str, np.ndarray]:
    """Pixels of every image at the threshold, and sums of probabilities."""
    names = ("intersection", "predicted", "truth")
    arrays = {name: judged.hard[:, place].numpy() for place, name in enumerate(names)}
    soft = {f"soft_{name}": judged.soft[:, place].numpy() for place, name in enumerate(names[:2])}
    return arrays | soft


TASK = Segmentation()
