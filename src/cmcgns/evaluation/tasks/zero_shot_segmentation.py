"""Zero-shot segmentation: what lies above a threshold of a finding's map, against the finding's region.

Nothing is trained; validation images choose where a map is cut. Test rows choose nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cmcgns.common.errors import UserError
from cmcgns.evaluation.contract import Job, Predictions
from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.features import token_batches
from cmcgns.evaluation.protocols import Cell
from cmcgns.evaluation.regions import Regions
from cmcgns.evaluation.task_settings.of_texts import MapSegmentationSettings
from cmcgns.metrics.measure import Array, Measures
from cmcgns.metrics.overlap import dice_and_iou, label_overlap_measures
from cmcgns.metrics.ranking import BoolArray, FloatArray, IntArray
from cmcgns.objectives.objective import MapKind
from cmcgns.objectives.phrase_maps import to_pixels
from cmcgns.pretrained import Pretrained
from cmcgns.pretrained.prompts import Ensembles, load_prompts

CUTS = np.r_[np.arange(0, 1, 0.02), 0.99]
"""Quantiles of a map's values in validation among which its threshold is chosen."""
_FEW = 5  # validation images: a label with fewer is cut where all labels together are cut best
_Unit = tuple[int, Tensor, npt.NDArray[np.uint8]]
"""Number of a label, its map (P,) of an image, and its region there, packed."""


class ZeroShotSegmentation:
    """Dice of images with a label at the encoder's size, mean over labels."""

    def lacks(self, data: TaskData, encoder: FrozenEncoder) -> str:
        """Why this task cannot be done; empty if it can."""
        settings = data.protocol.settings_as(MapSegmentationSettings)
        if reason := encoder.lacks_report_encoder() or data.lacks_regions(settings.target, ("val", "test")):
            return reason
        kind = _kind(settings, encoder.run)
        reason = encoder.run.lacks_map(kind)
        return f"{reason}: nothing trained its map {kind}" if reason else ""

    def run(self, job: Job) -> Iterator[tuple[Cell, Predictions]]:
        """Choose a threshold for each label on validation images, then cut the maps of the test images there."""
        settings, size = job.protocol.settings_as(MapSegmentationSettings), job.encoder.image_size
        names = job.data.region_names(settings.target)
        val, test = (Regions(getattr(job.data, part), names, settings.target, size) for part in ("val", "test"))
        maps = _LabelMaps(job, settings, names)
        cuts, facts = _choose(maps, val)
        rows, truth, inside, drawn = [], [], [], []
        for batch, values in maps.of(test):
            masks = test.masks(batch)
            found = [_counts(each, mask, cuts[:, None]) for each, mask in zip(values, masks, strict=True)]
            rows.append(batch)
            truth.append(masks.sum(axis=(2, 3)))
            inside.append(np.stack([each[0][:, 0] for each in found]))
            drawn.append(np.stack([each[1][:, 0] for each in found]))
        area = np.concatenate(truth)
        kept = (area > 0).any(axis=1)
        if not kept.any():
            raise UserError(f"{job.data.name}: all {settings.target} of test lie outside of what the encoder sees")
        arrays: dict[str, Array] = {
            "intersection": np.concatenate(inside)[kept], "predicted": np.concatenate(drawn)[kept],
            "truth": area[kept], "pixels": np.array(size**2), "labels": np.where(area[kept] > 0, 1.0, np.nan),
            "label_names": np.array(names), "counted": np.ones(len(names), bool), "positives_alone": np.array(True),
        }  # fmt: skip
        for cell in job.cells:
            yield cell, job.predictions(arrays, maps.facts | facts, np.concatenate(rows)[kept])

    def measures(self, predictions: Predictions) -> Measures:
        """Figures of one cell."""
        return label_overlap_measures(predictions.arrays)


def _kind(settings: MapSegmentationSettings, model: Pretrained) -> MapKind:
    return model.map if settings.kind == "default" else settings.kind


class _LabelMaps:
    """Maps of labels: mean over their positive prompts minus mean over their negative ones."""

    def __init__(self, job: Job, settings: MapSegmentationSettings, names: Sequence[str]) -> None:
        book, self.job, self.model = load_prompts(settings.prompts, settings.ensemble), job, job.encoder.run
        entries = [book.of(name) for name in names]
        self.kind = _kind(settings, self.model)
        self.ensembles = Ensembles([each.positive for each in entries] + [each.negative for each in entries])
        self.phrases = self.model.encode_texts(self.ensembles.texts)
        self.facts = book.facts(names, "positive", "negative") | {"map": self.kind}

    def of(self, regions: Regions) -> Iterator[tuple[IntArray, Tensor]]:
        """Annotated images (b,) and their maps (b, K, P)."""
        job = self.job
        batches = token_batches(job.encoder, regions.images, regions.rows, lambda share: job.progress("maps", share))
        for batch, tokens in batches:
            found = self.model.patch_maps(tokens, self.phrases, self.kind).float().cpu()
            states, denies = self.ensembles.mean(found).chunk(2, 1)
            yield batch, states - denies


def _choose(maps: _LabelMaps, val: Regions) -> tuple[FloatArray, dict[str, Any]]:
    """(K,) thresholds with the best mean Dice of the label's validation images, and what they rest on.

    Candidates are quantiles of the values of the label's maps there.
    """
    units: list[_Unit] = []
    for batch, values in maps.of(val):
        masks = val.masks(batch)
        there = np.argwhere(masks.any(axis=(2, 3)))
        units += [(int(k), values[image, k], np.packbits(masks[image, k])) for image, k in there]
    if not units:
        raise UserError(f"{maps.job.data.name}: all {val.kind} of val lie outside of what the encoder sees")
    label = np.array([k for k, _, _ in units])
    chosen, counts = [], [int((label == k).sum()) for k in range(len(val.findings))]
    for k, count in enumerate(counts):
        own = [unit for unit in units if unit[0] == k] if count >= _FEW else units
        chosen.append(_best_cut(own, val.size))
    named = dict(zip(val.findings, chosen, strict=True))
    return np.array(chosen), {"thresholds": named, "validation_images": dict(zip(val.findings, counts, strict=True))}


def _best_cut(units: Sequence[_Unit], size: int) -> float:
    """Of quantiles of the maps' values the one with the highest mean Dice; of equals the lowest."""
    cuts = np.quantile(torch.cat([values for _, values, _ in units]).numpy(), CUTS)
    total = np.zeros(len(cuts))
    for _, values, packed in units:
        mask = np.unpackbits(packed, count=size**2).reshape(1, size, size).astype(bool)
        inside, drawn = _counts(values[None], mask, cuts[None])
        total += dice_and_iou(inside[0], drawn[0], np.full(len(cuts), mask.sum()))[0]
    return float(cuts[total.argmax()])


def _counts(maps: Tensor, masks: BoolArray, cuts: FloatArray) -> tuple[Array, Array]:
    """Pixels above thresholds, inside of masks and in all: (K, P), (K, s, s), (K, T) -> (K, T) twice."""
    pixels = to_pixels(maps, masks.shape[1:]).double().flatten(1).numpy()
    inside, drawn = np.zeros(cuts.shape, np.int64), np.zeros(cuts.shape, np.int64)
    for k, (values, mask) in enumerate(zip(pixels, masks.reshape(len(masks), -1), strict=True)):
        for found, some in ((inside, np.sort(values[mask])), (drawn, np.sort(values))):
            found[k] = len(some) - np.searchsorted(some, cuts[k], side="right")
    return inside, drawn


TASK = ZeroShotSegmentation()
