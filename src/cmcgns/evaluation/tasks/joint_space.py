"""Test images, their reports and phrases, in the space that both share."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cmcgns.data.images.place import Pixels
from cmcgns.data.pairs.rows import choose_text
from cmcgns.data.reports.text import normalise_sentence, split_sentences
from cmcgns.evaluation.image_set import ImageSet
from cmcgns.evaluation.protocols.task_settings import PhraseKind, TextKind
from cmcgns.pretrained.prompts import PromptBook, speaks_of_side

if TYPE_CHECKING:
    from cmcgns.evaluation.encoder import FrozenEncoder
    from cmcgns.pretrained import Pretrained

BATCH = 64  # as in `Pretrained.embed_image`: equal batches give equal bits
Floats = npt.NDArray[np.float32]


def lacks_report_encoder(encoder: FrozenEncoder) -> str:
    """Why images cannot be compared with text; empty if they can."""
    if encoder.pretrained is None:
        return f"{encoder.name} has no report encoder (only the folder of a run has one)"
    return ""


def lacks_joint_space(encoder: FrozenEncoder) -> str:
    """Why there are no global embeddings of images and text; empty if there are."""
    if (reason := lacks_report_encoder(encoder)) or encoder.pretrained is None:
        return reason
    recipe = encoder.pretrained.recipe
    if recipe.objective.weight_global == 0:
        return f"{encoder.name} was trained with objective.weight_global 0: its global embeddings mean nothing"
    if encoder.image_size != recipe.data.image_size:
        return f"{encoder.name} pools images of {recipe.data.image_size} px only, not of {encoder.image_size}"
    return ""


def pretrained_of(encoder: FrozenEncoder) -> Pretrained:
    """The run behind an encoder that lacks nothing."""
    assert encoder.pretrained is not None
    return encoder.pretrained


def embed_pixels(encoder: FrozenEncoder, pixels: Pixels, progress: Callable[[float], None]) -> Floats:
    """Embed stored squares; the same numbers as :meth:`cmcgns.pretrained.Pretrained.embed_image` of their files.

    Args:
        encoder: of a run.
        pixels: (n, S, S), may be memory-mapped.
        progress: called with the share that is done.

    Returns:
        (n, D) unit vectors.
    """
    model, parts = pretrained_of(encoder), []
    for start in range(0, len(pixels), BATCH):
        progress(start / len(pixels))
        parts.append(model.embed_tensors(encoder.tensors(np.array(pixels[start : start + BATCH]))))
    return np.concatenate(parts)


def texts_of(frame: pd.DataFrame, kind: TextKind) -> list[str]:
    """The text of each row by the rule of `data.text`, empty where it holds no sentence."""
    texts = choose_text(frame, kind).tolist()
    return [text if split_sentences(text) else "" for text in texts]


def right_groups(texts: Sequence[str], studies: Sequence[str]) -> npt.NDArray[np.intp]:
    """Numbers (n,), equal for rows that are right answers to each other.

    Those are rows of one study and rows whose reports are equal sentence by sentence (case, white space and closing
    punctuation aside), and rows that such steps connect.
    """
    normalised = ["\n".join(map(normalise_sentence, split_sentences(text))) for text in texts]
    number = np.arange(len(normalised))
    keys = [np.unique(np.asarray(key), return_inverse=True)[1] for key in (normalised, list(studies))]
    while True:
        before = number
        for key in keys:
            least = np.full(key.max() + 1, len(number))
            np.minimum.at(least, key, number)
            number = least[key]
        if (number == before).all():
            return number


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
