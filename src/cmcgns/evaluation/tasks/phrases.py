"""Phrases and the boxes that they speak of."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cmcgns.data.reports.text import normalise_sentence, split_sentences
from cmcgns.evaluation.image_set import ImageSet
from cmcgns.evaluation.protocols.task_settings import PhraseKind
from cmcgns.pretrained.prompts import PromptBook, speaks_of_side

_WRITTEN = ("phrase", "label_text")  # keys of a box that may hold the words it was drawn for


@dataclass(frozen=True)
class Unit:
    """What is to be found: a phrase in an image.

    Attributes:
        image: its number in the set.
        label: of the boxes.
        phrases: sentences that say it; their maps are averaged.
        boxes: (k, 4) x0, y0, x1, y1 in pixels of the stored square.
    """

    image: int
    label: str
    phrases: tuple[str, ...]
    boxes: npt.NDArray[np.float64]


def find_units(
    images: ImageSet, kind: PhraseKind, book: PromptBook, texts: Sequence[str]
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

    Returns:
        The units, and how many labels with boxes no sentence states, by label.
    """
    annotated = np.flatnonzero(~images.frame["boxes"].isin(["", "[]"]).to_numpy())
    there = replace(images, frame=images.frame.iloc[annotated])
    units, unsaid = [], Counter[str]()
    for image, stored, corners in zip(annotated.tolist(), there.frame["boxes"], there.boxes(), strict=True):
        boxes: list[dict[str, Any]] = json.loads(stored)
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
