"""Patch probe: what a linear layer reads out of single patches of a frozen encoder, trained with a few regions.

The last tokens (B, P, C) are the features, one logistic regression a finding tells patches in its region from the
others. Maps of phrases ask what report and image share; this asks what the patches hold at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cmcgns.common.errors import UserError
from cmcgns.evaluation.contract import Job, Predictions
from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.features import Floats, token_batches
from cmcgns.evaluation.protocols import Cell
from cmcgns.evaluation.regions import Regions
from cmcgns.evaluation.task_settings.base import PARTS
from cmcgns.evaluation.task_settings.learned import PatchProbeSettings
from cmcgns.evaluation.tasks.linear.probe import LinearProbe, choose_dtype, fit_probe
from cmcgns.metrics.classes import skipped_classes
from cmcgns.metrics.classification import patch_measures
from cmcgns.metrics.measure import Array, Measures
from cmcgns.metrics.ranking import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class _Patches:
    """Patches to learn from or to choose by: number of the image (m,), tokens (m, C), labels (m, K)."""

    image: IntArray
    tokens: Floats
    labels: FloatArray


class PatchProbe:
    """Average precision of patches in the region of a finding among all patches of the annotated test images."""

    def lacks(self, data: TaskData, encoder: FrozenEncoder) -> str:
        """Why this task cannot be done; empty if it can."""
        del encoder  # any will do
        return data.lacks_regions(data.protocol.settings_as(PatchProbeSettings).target, PARTS)

    def run(self, job: Job) -> Iterator[tuple[Cell, Predictions]]:
        """Fit the probes of all cells on patches that are encoded once, then let them score each test image once."""
        settings = job.protocol.settings_as(PatchProbeSettings)
        names = job.data.region_names(settings.target)
        train, val, test = (
            Regions(getattr(job.data, part), names, settings.target, job.encoder.image_size, settings.finding_share)
            for part in PARTS
        )
        strata = _strata(job, train)
        shown = {cell: rows_to_learn(job, cell, train, strata) for cell in job.cells}
        learn = _gather(job, train, np.unique(np.concatenate(list(shown.values()))), settings, "train")
        choose = _gather(job, val, val.rows, settings, "val")
        solved: dict[bytes, tuple[LinearProbe, dict[str, Any]]] = {}
        for number, cell in enumerate(job.cells):
            job.progress(f"{cell.name}: logistic regressions", number / len(job.cells))
            key = shown[cell].tobytes()  # all patients are the same rows for every seed
            solved[key] = solved.get(key) or _fit(job, settings, learn, choose, shown[cell])
        scores, truth = _score(job, test, {key: probe for key, (probe, _) in solved.items()})
        known = ~np.isnan(truth)
        labels = np.where(known.any(axis=1), (truth == 1).any(axis=1), np.nan)
        for cell in job.cells:
            key = shown[cell].tobytes()
            rows = learn.labels[np.isin(learn.image, shown[cell])]
            reasons, counted = skipped_classes(names, rows, truth.reshape(-1, len(names)))
            arrays: dict[str, Array] = {
                "scores": scores[key], "patch_labels": truth.astype(np.float16), "labels": labels,
                "label_names": np.array(names), "counted": counted, "positives_alone": np.array(True),
            }  # fmt: skip
            facts = solved[key][1] | {
                "skipped": reasons,
                "train_images": len(shown[cell]),
                "share": _share(names, truth),
            }
            yield cell, job.predictions(arrays, facts, test.rows)

    def measures(self, predictions: Predictions) -> Measures:
        """Figures of one cell."""
        return patch_measures(predictions.arrays)


def _strata(job: Job, train: Regions) -> FloatArray:
    """(N, K) whether a training image has a positive patch; NaN where nobody said: the smallest share needs some."""
    patches = job.encoder.tokens(job.encoder.tensors(np.asarray(train.images.pixels[:1]))).shape[1]
    strata = np.full((len(train.images), len(train.findings)), np.nan)
    for batch in np.array_split(train.rows, -(-len(train.rows) // 256)):
        labels = train.patch_labels(batch, patches)
        strata[batch] = np.where(np.isnan(labels).all(axis=1), np.nan, (labels == 1).any(axis=1))
    return strata


def rows_to_learn(job: Job, cell: Cell, train: Regions, strata: FloatArray) -> IntArray:
    """Annotated images of a cell's share of the training patients, with and without each finding in proportion.

    Raises:
        UserError: none of them is annotated.
    """
    rows = np.intersect1d(job.data.fraction_rows(cell, strata), train.rows)
    if not len(rows):
        raise UserError(
            f"{job.protocol.id}, {cell.name}: no image of these training patients is annotated: ask for more than "
            f"{cell.fraction:g} % with --fractions"
        )
    return rows


def chosen_patches(labels: FloatArray, most: int, seed: Sequence[int]) -> BoolArray:
    """(P,) patches of an image to keep of labels (P, K): all that are positive, and at most `most` others, drawn."""
    positive = (labels == 1).any(axis=1)
    others = np.flatnonzero(~positive & ~np.isnan(labels).all(axis=1))
    drawn = others if len(others) <= most else np.random.default_rng(seed).choice(others, most, replace=False)
    positive[drawn] = True
    return np.asarray(positive)


def _gather(job: Job, regions: Regions, rows: IntArray, settings: PatchProbeSettings, part: str) -> _Patches:
    """Patches of some annotated images.

    What is kept of an image depends on the image and its split alone, so a cell learns the same whichever cells are
    computed beside it.
    """
    most = max(1, settings.max_negatives // len(regions.rows))
    found: list[tuple[IntArray, Floats, FloatArray]] = []
    for batch, tokens in token_batches(
        job.encoder, regions.images, rows, lambda share: job.progress(f"patches of {part}", share)
    ):
        labels = regions.patch_labels(batch, tokens.shape[1])
        each = zip(batch.tolist(), labels, strict=True)
        kept = np.stack([chosen_patches(patches, most, (settings.seed, image)) for image, patches in each])
        inside = torch.from_numpy(kept).to(tokens.device)
        found.append((np.repeat(batch, kept.sum(axis=1)), tokens[inside].cpu().numpy(), labels[kept]))
    return _Patches(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _fit(
    job: Job, settings: PatchProbeSettings, learn: _Patches, choose: _Patches, images: IntArray
) -> tuple[LinearProbe, dict[str, Any]]:
    rows = np.flatnonzero(np.isin(learn.image, images))
    dtype = choose_dtype(len(rows), learn.tokens.shape[1])
    probe = fit_probe(
        learn.tokens, learn.labels, choose.tokens, choose.labels, settings.l2_grid, dtype, job.encoder.device, rows
    )
    facts = {
        "l2": probe.l2,
        "converged": probe.converged,
        "train_patches": len(rows),
        "train_positive_patches": (learn.labels[rows] == 1).sum(axis=0).tolist(),
        "validation_of_l2": {f"{l2:g}": round(score, 6) for l2, score in probe.validation.items()},
    }
    return probe, facts


def _score(
    job: Job, test: Regions, probes: dict[bytes, LinearProbe]
) -> tuple[dict[bytes, npt.NDArray[np.float32]], FloatArray]:
    """Log-odds (n, P, K) of each probe, and labels (n, P, K), of all patches of the annotated test images."""
    scores: dict[bytes, list[npt.NDArray[np.float32]]] = {key: [] for key in probes}
    truth: list[FloatArray] = []
    for batch, tokens in token_batches(
        job.encoder, test.images, test.rows, lambda s: job.progress("test patches", s)
    ):
        flat = tokens.flatten(0, 1).cpu().numpy()
        truth.append(test.patch_labels(batch, tokens.shape[1]))
        for key, probe in probes.items():
            scores[key].append(probe.logits(flat).reshape(truth[-1].shape).astype(np.float32))
    return {key: np.concatenate(each) for key, each in scores.items()}, np.concatenate(truth)


def _share(names: tuple[str, ...], truth: FloatArray) -> dict[str, float | None]:
    """Positive patches among those that are judged, by finding; None where none is judged."""
    known = (~np.isnan(truth)).sum(axis=(0, 1)).tolist()
    positive = (truth == 1).sum(axis=(0, 1)).tolist()
    return {name: one / of if of else None for name, one, of in zip(names, positive, known, strict=True)}


TASK = PatchProbe()
