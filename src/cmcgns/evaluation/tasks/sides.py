"""Left or right: a sentence that names the side of a finding against itself with the side swapped.

Everything else about the two is equal, so what tells them apart is whether image and report share a sense of side.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from cmcgns.common.errors import UserError
from cmcgns.data.boxes import parse_boxes, picture_size
from cmcgns.data.reports.text import normalise_sentence, split_sentences
from cmcgns.evaluation.contract import Job, Predictions
from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.image_set import ImageSet
from cmcgns.evaluation.protocols import Cell
from cmcgns.evaluation.task_settings.of_texts import SIDE_ACCURACY, SidesSettings
from cmcgns.metrics.measure import Array, Measures, label_means
from cmcgns.metrics.ranking import FloatArray
from cmcgns.objectives.objective import By
from cmcgns.pretrained.prompts import PromptBook, load_prompts, names_one_side, swap_sides

_BATCH = 32  # images scored at a time, each with the sentences of all of them
_BOTH = re.compile(r"\b(?:bilateral\w*|both|left|right)\b", re.IGNORECASE)
_TIE = 1e-6  # relative: single precision cannot tell such scores apart


@dataclass(frozen=True)
class Statement:
    """A sentence of an image's report that says on which side a finding is, and the first label that it states."""

    image: int
    label: str
    sentence: str


class Sides:
    """Share of statements that score higher than themselves with the side swapped; equal scores count half."""

    def lacks(self, data: TaskData, encoder: FrozenEncoder) -> str:
        """Why this task cannot be done; empty if it can."""
        return data.lacks_reports() or data.protocol.settings_as(SidesSettings).lacked_by(encoder)

    def run(self, job: Job) -> Iterator[tuple[Cell, Predictions]]:
        """Score every statement and its swapped twin with the statement's own image."""
        test, model = job.data.test, job.encoder.run
        book = load_prompts(job.protocol.settings_as(SidesSettings).prompts)
        labels = [*book.labels(), *book.unknown(job.data.label_names)]
        said = find_statements(test.texts(model.recipe.data.text), book, labels, _sides_with_boxes(test))
        if not said:
            raise UserError(f"{job.data.name}: no report of test states a finding on one side")
        arrays: dict[str, Array] = {}
        for by in (by for by in get_args(By) if not job.encoder.lacks_score(by)):
            scores = _score(job, said, by)
            arrays |= {f"score_{by}": scores, f"{SIDE_ACCURACY}_{by}": _wins(scores)}
        arrays["labels"] = np.array([one.label for one in said])
        rows = np.array([one.image for one in said])
        facts = {"prompts": book.name, "statements": len(said), "images": len(set(rows.tolist()))}
        names = [f"{test.names[one.image]}\t{one.sentence}" for one in said]
        for cell in job.cells:
            yield cell, replace(job.predictions(arrays, facts, rows), rows=np.array(names))

    def measures(self, predictions: Predictions) -> Measures:
        """Means over the statements, then by label."""
        arrays = predictions.arrays
        wins = {name: values for name, values in arrays.items() if name.startswith(SIDE_ACCURACY)}
        return label_means(wins, arrays["labels"], wins)


def find_statements(
    texts: Sequence[str], book: PromptBook, labels: Sequence[str], boxes: Sequence[Collection[tuple[str, str]]] = ()
) -> list[Statement]:
    """Sentences that state a label and name one side, each once an image.

    Left out are those of a label that another sentence of the report, or a box, puts on the other side or on both:
    with the side swapped they may be true as well.

    Args:
        texts: the report of each image; empty where there is none.
        book: the words that tell what a sentence is about.
        labels: of findings.
        boxes: label and side of each image's boxes, reported or not; empty where nothing is known of any.
    """
    found: list[Statement] = []
    for image, text in enumerate(texts):
        sentences = {normalise_sentence(sentence): sentence for sentence in split_sentences(text)}
        for sentence in filter(names_one_side, sentences.values()):
            stated = [label for label in labels if book.states(sentence, label)]
            others = [each for each in sentences.values() if any(book.states(each, label) for label in stated)]
            sides = {word.lower() for each in others for word in _BOTH.findall(each)}
            sides |= {side for label, side in (boxes[image] if boxes else ()) if book.states(sentence, label)}
            if stated and len(sides) == 1:
                found.append(Statement(image, stated[0], sentence))
    return found


def _sides_with_boxes(images: ImageSet) -> list[set[tuple[str, str]]]:
    """Label and side of the boxes of each image; the patient's right is on the left of a frontal film."""
    columns, found = images.frame[["boxes", "width", "height"]], []
    for name, (text, width, height) in zip(images.names, columns.itertuples(index=False), strict=True):
        boxes = parse_boxes(text, str(name))
        middle = picture_size(width, height, str(name))[0] / 2 if boxes else 0.0
        sides = (("right" if box["x"] + box["width"] / 2 < middle else "left", box) for box in boxes)
        found.append({(str(box.get("label", "")), side) for side, box in sides})
    return found


def _score(job: Job, said: Sequence[Statement], by: By) -> FloatArray:
    """(n, 2) scores of each statement and of its swapped twin with the image."""
    model, pixels, scores = job.encoder.run, job.data.test.pixels, np.empty((len(said), 2))
    image = np.array([one.image for one in said])
    distinct = np.unique(image)
    for start in range(0, len(distinct), _BATCH):
        job.progress(f"sides, {by}", start / len(distinct))
        shown = distinct[start : start + _BATCH]
        places = np.flatnonzero(np.isin(image, shown))
        texts = [
            text for place in places.tolist() for text in (said[place].sentence, swap_sides(said[place].sentence))
        ]
        tensors = job.encoder.tensors(np.asarray(pixels[shown]))
        table = model.text_scores(tensors, model.encode_texts(texts), by).reshape(len(shown), -1, 2)
        scores[places] = table[np.searchsorted(shown, image[places]), np.arange(len(places))]
    return scores


def _wins(scores: FloatArray) -> FloatArray:
    """(n, 2) -> (n,) 1 where the first is the higher score, 0.5 where they are equal within rounding."""
    difference, tie = scores[:, 0] - scores[:, 1], _TIE * np.maximum(1, np.abs(scores).max(axis=1))
    return np.where(np.abs(difference) <= tie, 0.5, np.asarray(difference > 0, dtype=np.float64))


TASK = Sides()
