"""Grounding: a phrase is to light up the boxes that it speaks of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cmcgns.common.errors import UserError
from cmcgns.data.reports.text import normalise_sentence, split_sentences
from cmcgns.evaluation.contract import Job, Predictions
from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.image_set import ImageSet
from cmcgns.evaluation.protocols import Cell
from cmcgns.evaluation.task_settings.of_texts import GroundingSettings, PhraseKind
from cmcgns.metrics.measure import Array, Measures, label_means
from cmcgns.metrics.overlap import box_masks, contrast_to_noise, mean_overlap, pointing_game
from cmcgns.objectives.objective import MapKind
from cmcgns.objectives.phrase_maps import to_pixels
from cmcgns.pretrained.prompts import Ensembles, PromptBook, load_prompts, speaks_of_side

_IMAGES = 32  # encoded at a time
_PIXELS = 1 << 23  # of maps at a time
_WRITTEN = ("phrase", "label_text")  # keys of a box that may hold the words it was drawn for
_BY_LABEL = (
    "pointing_similarity", "pointing_attention", "pointing_default", "pointing_chance",
    "cnr_similarity", "cnr_attention", "cnr_default",
)  # fmt: skip


class Grounding:
    """Pointing game, contrast-to-noise ratio and overlap of similarity, attention and default maps with boxes.

    The default map is of the kind that told best, in the run's validation, where a sentence is true: no box chose it.
    A row is a phrase in an image; intervals draw patients. `cnr` has its sign, `cnr_absolute` is the published one.
    `pointing_chance` is the share of the square that the boxes cover: what a random point gets.
    """

    def lacks(self, data: TaskData, encoder: FrozenEncoder) -> str:
        """Why this task cannot be done; empty if it can."""
        if reason := encoder.lacks_report_encoder() or data.lacks_boxes(("test",)):
            return reason
        if reason := data.protocol.settings_as(GroundingSettings).lacked_by(encoder):
            return f"{reason}: nothing trained a map"
        return ""

    def run(self, job: Job) -> Iterator[tuple[Cell, Predictions]]:
        """Figures of every phrase in every image."""
        settings, test = job.protocol.settings_as(GroundingSettings), job.data.test
        model = job.encoder.run
        book = load_prompts(settings.prompts, settings.ensemble)
        texts = test.texts(model.recipe.data.text)
        units, unsaid = find_units(test, settings.phrases, book, texts, job.encoder.image_size)
        if not units:
            raise UserError(f"{job.data.name}: no report sentence states a label that has boxes")
        found = _judge(job, settings, units, book)
        inside = ~np.isnan(found["pointing_chance"])
        if not inside.any():
            raise UserError(f"{job.data.name}: all boxes lie outside of what the encoder sees")
        kept = [unit for unit, there in zip(units, inside, strict=True) if there]
        labels = sorted({unit.label for unit in kept})
        said = ["positive"] if settings.phrases == "label" else []
        facts = book.facts(labels, *said) | {
            "phrases_outside_of_the_picture": int((~inside).sum()),
            "labels_without_sentence": unsaid,
            "similarity": model.lacks_map(settings.similarity) or "yes",
            "attention": model.lacks_map("attention") or "yes",
            "default_map": model.map,
        }
        arrays = {name: values[inside] for name, values in found.items()}
        arrays["labels"] = np.array([unit.label for unit in kept])
        for cell in job.cells:
            made = job.predictions(arrays, facts, np.array([unit.image for unit in kept]))
            yield cell, replace(made, rows=_names(test.names, kept))

    def measures(self, predictions: Predictions) -> Measures:
        """Means over the phrases, then some of them by label."""
        arrays = dict(predictions.arrays)
        labels = arrays.pop("labels")
        return label_means(arrays, labels, [name for name in _BY_LABEL if name in arrays])


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
    """(n, P) `similarity`, `default`, `attention`, those trained, of units whose images are encoded together."""
    model, encoder, test = job.encoder.run, job.encoder, job.data.test
    images, place = np.unique([unit.image for unit in units], return_inverse=True)
    tokens = encoder.tokens(encoder.tensors(np.asarray(test.pixels[images])))
    said = Ensembles(unit.phrases for unit in units)
    denied = Ensembles(book.of(unit.label).negative for unit in units)

    def mean_map(kind: MapKind, ensembles: Ensembles) -> torch.Tensor:
        """(n, P) of each unit in its own image."""
        found = model.patch_maps(tokens, model.encode_texts(ensembles.texts), kind).cpu()
        owned = zip(place, ensembles.places, strict=True)
        return torch.stack([found[int(image), places].mean(0) for image, places in owned])

    def contrasted(kind: MapKind) -> torch.Tensor:
        return mean_map(kind, said) - mean_map(kind, denied) if settings.contrast else mean_map(kind, said)

    named: dict[str, MapKind] = {"similarity": settings.similarity, "default": model.map, "attention": "attention"}
    trained = [kind for kind in dict.fromkeys(named.values()) if not model.lacks_map(kind)]
    made = {kind: mean_map(kind, said) if kind == "attention" else contrasted(kind) for kind in trained}
    return {of: made[kind] for of, kind in named.items() if kind in made}


def _figures(
    job: Job, settings: GroundingSettings, units: Sequence[Unit], maps: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """(n,) of every figure."""
    size = job.encoder.image_size
    masks = box_masks([unit.boxes for unit in units], size)
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


@dataclass(frozen=True)
class Unit:
    """What is to be found: a phrase in an image.

    Attributes:
        image: its number in the set.
        label: of the boxes.
        phrases: sentences that say it; their maps are averaged.
        boxes: (k, 4) x0, y0, x1, y1 in pixels of the crop; they may reach out of it.
    """

    image: int
    label: str
    phrases: tuple[str, ...]
    boxes: npt.NDArray[np.float64]


def find_units(
    images: ImageSet, kind: PhraseKind, book: PromptBook, texts: Sequence[str], crop: int
) -> tuple[list[Unit], dict[str, int]]:
    """All phrases with boxes, in the order of the images.

    Args:
        images: rows that were not annotated are skipped.
        kind: `label`: one unit for each label that has boxes in an image, said by the label's positive prompts.
            `sentence`: one for each text that boxes carry (key `phrase` or `label_text`) and, for labels whose boxes
            carry none, for each report sentence that states the label; if it names one side and boxes have a `side`,
            only boxes of that side count.
        book: prompts, and the words that tell what a sentence is about.
        texts: the report of each row.
        crop: side of what the encoder sees of the square.

    Returns:
        The units, and how many labels with boxes no sentence states, by label.
    """
    annotated = np.flatnonzero(~images.frame["boxes"].isin(["", "[]"]).to_numpy())
    units, unsaid = [], Counter[str]()
    for image, boxes, corners in images.placed(annotated, crop):
        for label in dict.fromkeys(str(box.get("label", "")) for box in boxes):
            chosen = [number for number, box in enumerate(boxes) if str(box.get("label", "")) == label]
            if kind == "label":
                units.append(Unit(image, label, book.of(label).positive, corners[chosen]))
                continue
            said = dict(_sentences(boxes, chosen, label, book, texts[image]))
            units += [Unit(image, label, (phrase,), corners[numbers]) for phrase, numbers in said.items()]
            unsaid[label] += not said
    return units, {label: count for label, count in sorted(unsaid.items()) if count}


def _sentences(
    boxes: Sequence[dict[str, Any]], chosen: Sequence[int], label: str, book: PromptBook, text: str
) -> Iterator[tuple[str, list[int]]]:
    """Sentences that state a label, each with the numbers of its boxes."""
    written = {number: _written(boxes[number]) for number in chosen}
    if any(written.values()):
        for phrase in dict.fromkeys(filter(None, written.values())):
            yield phrase, [number for number in chosen if written[number] == phrase]
        return
    seen = set[str]()
    for sentence in split_sentences(text):
        same = normalise_sentence(sentence)
        if same in seen or not book.states(sentence, label):
            continue
        seen.add(same)
        numbers = [number for number in chosen if speaks_of_side(sentence, boxes[number].get("side"))]
        if numbers:
            yield sentence, numbers


def _written(box: dict[str, Any]) -> str:
    texts = (" ".join(str(box.get(key) or "").split()) for key in _WRITTEN)
    return next((text for text in texts if split_sentences(text)), "")


TASK = Grounding()
