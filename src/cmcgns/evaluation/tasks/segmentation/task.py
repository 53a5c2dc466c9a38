"""Segmentation: a decoder learns to draw masks from a frozen encoder's maps."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from cmcgns.common.errors import UserError
from cmcgns.evaluation.contract import Job, Predictions
from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.image_set import ImageSet
from cmcgns.evaluation.protocols import Cell
from cmcgns.evaluation.regions import read_targets
from cmcgns.evaluation.task_settings.base import PARTS
from cmcgns.evaluation.task_settings.learned import SegmentationSettings
from cmcgns.evaluation.tasks.segmentation.decoders import MapStore, MaskSplit, build_decoder, decoder_name
from cmcgns.evaluation.tasks.segmentation.own_size import COUNTS, OwnSize
from cmcgns.evaluation.tasks.segmentation.train import DecoderHead, epoch_rows, measure_overlap
from cmcgns.evaluation.tasks.train_head import checkpoint_of, schedule_of, train_head
from cmcgns.metrics.measure import Measures, joined
from cmcgns.metrics.overlap import overlap_measures
from cmcgns.metrics.ranking import IntArray


class Segmentation:
    """Dice and IoU of images with a mask, and of all images."""

    def lacks(self, data: TaskData, encoder: FrozenEncoder) -> str:
        """Why this task cannot be done; empty if it can."""
        del encoder  # any that gives maps will do
        settings = data.protocol.settings_as(SegmentationSettings)
        return data.lacks_targets(settings.target, ("train", "test"))

    def run(self, job: Job) -> Iterator[tuple[Cell, Predictions]]:
        """Train one decoder a cell and let it draw on the test images."""
        settings = job.protocol.settings_as(SegmentationSettings)
        job.progress("reading what is to be drawn", 0.0)
        splits = {name: _split(job, settings, name) for name in PARTS}
        store = MapStore(job.encoder, settings.cache_limit, settings.batch_size)
        for cell in job.cells:
            yield cell, _run_cell(job, settings, cell, store, splits)
            checkpoint_of(job, cell).unlink(missing_ok=True)

    def measures(self, predictions: Predictions) -> Measures:
        """Figures of one cell, at the size of the encoder's input and at that of the masks themselves (`…_full`)."""
        arrays = predictions.arrays
        parts = []
        for start, suffix in (("", ""), ("own_", "_full")):
            both, drawn, truth = (arrays.get(start + name) for name in COUNTS)
            if both is not None and drawn is not None and truth is not None:
                parts.append(overlap_measures(both, drawn, truth, suffix))
        return joined(parts)


def _split(job: Job, settings: SegmentationSettings, name: str) -> MaskSplit:
    images: ImageSet = getattr(job.data, name)
    targets = read_targets(images, settings.target, job.encoder.image_size)
    if not len(targets.masks) and name != "val":
        raise UserError(
            f"{job.data.folder}: {settings.target} of {name} have not a single pixel inside (a mask is 255 inside)"
        )
    return MaskSplit(name, images, targets)


def _rows_to_learn(job: Job, cell: Cell, train: MaskSplit) -> IntArray:
    """Rows of the fraction, images with and without a mask in their proportion."""
    rows = job.data.fraction_rows(cell, train.targets.positive[:, None].astype(np.float64))
    if not train.targets.positive[rows].any():
        raise UserError(f"{job.protocol.id}, {cell.name}: none of the {len(rows)} training images has a mask")
    return rows


def _compute_maps(
    job: Job,
    settings: SegmentationSettings,
    cell: Cell,
    store: MapStore,
    splits: dict[str, MaskSplit],
    rows: IntArray,
) -> None:
    """Maps that the cell needs, if they can be kept."""
    job.progress(f"{cell.name}: computing maps", job.cells.index(cell) / len(job.cells))
    if settings.augment_share == 0:
        shown = rows
        if settings.balance == "once":
            shown = np.sort(epoch_rows(rows, splits["train"].targets.positive, "once", cell.seed or 0, 0))
        store.keep(splits["train"], shown)
    store.keep(splits["val"], np.arange(len(splits["val"].images)))
    if len(job.cells) > 1:
        store.keep(splits["test"], np.arange(len(splits["test"].images)))


def _run_cell(
    job: Job, settings: SegmentationSettings, cell: Cell, store: MapStore, splits: dict[str, MaskSplit]
) -> Predictions:
    train, test = splits["train"], splits["test"]
    rows = _rows_to_learn(job, cell, train)
    _compute_maps(job, settings, cell, store, splits, rows)
    decoder = build_decoder(job.encoder, settings, cell.seed or 0)
    head = DecoderHead(decoder, store, train, rows, splits["val"], settings, cell.seed or 0)
    trained = train_head(head, schedule_of(job, cell, settings.epochs, settings.patience, settings.stop_on))
    began = time.monotonic()
    own = OwnSize(test.images, settings.target, settings.threshold)
    found = measure_overlap(decoder, store, test, np.arange(len(test.images)), settings, own.add)
    positive = train.targets.positive[rows]
    # Pixels at the threshold, and sums of probabilities.
    arrays = {name: found.hard[:, place].numpy() for place, name in enumerate(COUNTS)}
    arrays |= {f"soft_{name}": found.soft[:, place].numpy() for place, name in enumerate(COUNTS[:2])}
    arrays |= own.arrays()
    facts = {
        "decoder": decoder_name(job.encoder, settings),
        "decoder_parameters": sum(parameter.numel() for parameter in decoder.parameters()),
        "epoch": trained.epochs,
        "best_epoch": trained.best_epoch,
        "best_score": round(trained.best, 6),
        "seconds": round(trained.seconds, 6),
        "test_seconds": round(time.monotonic() - began, 2),
        "train_images_with_mask": int(positive.sum()),
        "train_images_without_mask": int((~positive).sum()),
        "images_with_maps_kept": store.kept,
        "bytes_of_maps_an_image": store.image_bytes,
        "share_of_test_masks_cut_off_by_the_crop": test.targets.outside,
        "image_size": job.encoder.image_size,
    }
    return job.predictions(arrays, facts)


TASK = Segmentation()
