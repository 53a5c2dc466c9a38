"""Grounding: a phrase is to light up the boxes that it speaks of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from cmcgns.common.errors import UserError
from cmcgns.evaluation.contract import Job, Predictions
from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.protocols import Cell
from cmcgns.evaluation.protocols.task_settings import GroundingSettings
from cmcgns.evaluation.tasks.joint_space import Unit, find_units, lacks_report_encoder, pretrained_of, texts_of
from cmcgns.metrics.measure import Array, Measure, Measures, row_means
from cmcgns.metrics.overlap import box_masks, contrast_to_noise, mean_overlap, pointing_game
from cmcgns.pretrained.phrase_maps import MapKind, patch_maps, to_pixels, untrained
from cmcgns.pretrained.prompts import PromptBook, load_prompts

_IMAGES = 32  # encoded at a time
_PIXELS = 1 << 23  # of maps at a time
_BY_LABEL = ("pointing_similarity", "pointing_attention", "pointing_chance", "cnr_similarity", "cnr_attention")


class Grounding:
    """Pointing game, contrast-to-noise ratio and overlap of similarity and attention maps with boxes.

    A row is a phrase in an image; intervals draw patients. `cnr` has its sign, `cnr_absolute` is the published one.
    `pointing_chance` is the share of the square that the boxes cover: what a random point gets.
    """

    def lacks(self, data: TaskData, encoder: FrozenEncoder) -> str:
        """Why this task cannot be done; empty if it can."""
        if reason := lacks_report_encoder(encoder):
            return reason
        if data.frame.loc[data.frame["part"] == "test", "boxes"].isin(["", "[]"]).all():
            return "no image of test has a box"
        settings = cast(GroundingSettings, data.protocol.task_settings)
        if reason := untrained(pretrained_of(encoder), settings.similarity):
            return f"{reason}: nothing trained its {settings.similarity} similarity"
        return ""

    def run(self, job: Job) -> Iterator[tuple[Cell, Predictions]]:
        """Figures of every phrase in every image."""
        settings, test = cast(GroundingSettings, job.settings), job.data.test
        model = pretrained_of(job.encoder)
        book = load_prompts(settings.prompts)
        texts = texts_of(test.frame, model.recipe.data.text)
        units, unsaid = find_units(test, settings.phrases, book, texts)
        if not units:
            raise UserError(f"{job.data.name}: no report sentence states a label that has boxes")
        found = _judge(job, settings, units, book)
        inside = ~np.isnan(found["pointing_chance"])
        if not inside.any():
            raise UserError(f"{job.data.name}: all boxes lie outside of what the encoder sees")
        kept = [unit for unit, there in zip(units, inside, strict=True) if there]
        labels = sorted({unit.label for unit in kept})
        facts: dict[str, Any] = {
            "prompts": book.name,
            "labels_from_template": book.unknown(labels),
            "phrases_outside_of_the_picture": int((~inside).sum()),
            "labels_without_sentence": unsaid,
            "attention": untrained(model, "attention") or "yes",
        }
        if settings.phrases == "label":
            facts["sentences"] = {label: list(_said(settings, book.of(label).positive)) for label in labels}
        arrays = {name: values[inside] for name, values in found.items()}
        arrays["labels"] = np.array([unit.label for unit in kept])
        job.encoder.check_unchanged()
        for cell in job.cells:
            patients = np.array([test.patients[unit.image] for unit in kept]).astype(str)
            yield cell, Predictions(_names(test.names, kept), patients, arrays, facts)

    def measures(self, predictions: Predictions) -> Measures:
        """Means over the phrases, then some of them by label."""
        arrays = dict(predictions.arrays)
        labels = arrays.pop("labels")
        values = {Measure(name): column for name, column in arrays.items()}
        for name in (name for name in _BY_LABEL if name in arrays):
            values |= {Measure(name, str(x)): np.where(labels == x, arrays[name], np.nan) for x in np.unique(labels)}
        return row_means(values)


def _said(settings: GroundingSettings, sentences: Sequence[str]) -> Sequence[str]:
    return sentences if settings.ensemble else sentences[:1]


def _names(images: npt.NDArray[np.str_], units: Sequence[Unit]) -> npt.NDArray[np.str_]:
    """`image<tab>label`, and the phrase where sentences were asked for: unlike each other."""
    phrase = [unit.phrases[0] for unit in units]
    names = [f"{images[unit.image]}\t{unit.label}" for unit in units]
    if len(set(names)) < len(names):
        names = [f"{name}\t{said}" for name, said in zip(names, phrase, strict=True)]
    return np.array(names)


def _judge(job: Job, settings: GroundingSettings, units: Sequence[Unit], book: PromptBook) -> dict[str, Array]:
    """(n,) of every figure; NaN where no box lies in what the encoder sees."""
    parts: list[dict[str, torch.Tensor]] = []
    place = np.unique([unit.image for unit in units], return_inverse=True)[1]
    batches = [[units[n] for n in batch] for _, batch in groupby(range(len(units)), lambda n: place[n] // _IMAGES)]
    for number, batch in enumerate(batches):
        job.progress("phrases", number / len(batches))
        maps = _maps(job, settings, batch, book)
        step = max(1, _PIXELS // job.encoder.image_size**2)
        for start in range(0, len(batch), step):
            part = slice(start, start + step)
            parts.append(_figures(job, settings, batch[part], {kind: each[part] for kind, each in maps.items()}))
    return {name: torch.cat([part[name] for part in parts]).double().numpy() for name in parts[0]}


def _maps(job: Job, settings: GroundingSettings, units: Sequence[Unit], book: PromptBook) -> dict[str, torch.Tensor]:
    """(n, P) `similarity`, and `attention` if it was trained, of units whose images are encoded together."""
    model, encoder, test = pretrained_of(job.encoder), job.encoder, job.data.test
    images, place = np.unique([unit.image for unit in units], return_inverse=True)
    tokens = encoder.tokens(encoder.tensors(np.asarray(test.pixels[images])))
    said = [_said(settings, unit.phrases) for unit in units]
    denied = [_said(settings, book.of(unit.label).negative) for unit in units]

    def mean_map(kind: MapKind, sentences: Sequence[Sequence[str]]) -> torch.Tensor:
        texts = list(dict.fromkeys(text for each in sentences for text in each))
        found = patch_maps(model, tokens, model.encode_texts(texts), kind).cpu()
        number = {text: n for n, text in enumerate(texts)}
        chosen = [found[int(image), [number[text] for text in each]].mean(0)
                  for image, each in zip(place, sentences, strict=True)]  # fmt: skip
        return torch.stack(chosen)

    maps = {"similarity": mean_map(settings.similarity, said)}
    if settings.contrast:
        maps["similarity"] = maps["similarity"] - mean_map(settings.similarity, denied)
    if not untrained(model, "attention"):
        maps["attention"] = mean_map("attention", said)
    return maps


def _figures(
    job: Job, settings: GroundingSettings, units: Sequence[Unit], maps: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """(n,) of every figure."""
    size = job.encoder.image_size
    offset = (job.data.test.pixels.shape[1] - size) // 2
    masks = box_masks([unit.boxes for unit in units], size, offset)
    outside = ~masks.flatten(1).any(1)
    found: dict[str, torch.Tensor] = {}
    for kind, values in maps.items():
        pixels = to_pixels(values, (size, size))
        ratio = contrast_to_noise(pixels, masks)
        found[f"pointing_{kind}"] = pointing_game(pixels, masks)
        found[f"cnr_{kind}"], found[f"cnr_absolute_{kind}"] = ratio, ratio.abs()
        raw = settings.overlap == "raw"
        found[f"miou_{kind}"] = mean_overlap(pixels, masks, settings.thresholds, raw)
    found["pointing_chance"] = masks.flatten(1).double().mean(1)
    return {name: torch.where(outside, torch.nan, values.double()) for name, values in found.items()}


TASK = Grounding()
