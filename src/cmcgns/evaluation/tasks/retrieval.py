"""Retrieval: an image is to find its report and a report its image; by class also other items of its class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cmcgns.common.errors import UserError
from cmcgns.data.images.near_duplicates import connected
from cmcgns.data.reports.text import normalise_sentence, split_sentences
from cmcgns.evaluation.contract import Job, Predictions
from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.features import Floats
from cmcgns.evaluation.protocols import Cell
from cmcgns.evaluation.task_settings.of_texts import RetrievalSettings
from cmcgns.metrics.measure import Array, Measure, Measures, row_means
from cmcgns.metrics.ranking import FloatArray, IntArray
from cmcgns.metrics.retrieval import chance_precision, chance_recall, precision_at_k, recall_at_k, recall_of_scores
from cmcgns.pretrained.prompts import load_prompts

_WAYS = ("report_to_image", "image_to_report")
_KEPT = ("image_embeddings", "report_embeddings")  # (n, D) of the queries: recall at any other k follows from them


@dataclass(frozen=True)
class _Gallery:
    """Rows that take part, embedded; `report` is None where no row has one."""

    rows: IntArray
    image: Floats
    report: Floats | None
    texts: list[str]
    group: npt.NDArray[np.intp]


class Retrieval:
    """Recall of right pairs, by the score that is asked for, and precision by class, by cosine of global embeddings.

    Every test image with a report is a query, and so is its report; each of them searches all others. Right are the
    pair itself, images of the same study, and studies whose report is equal sentence by sentence. A wrong item that
    ties with the best right one counts as ahead of it.

    Intervals and subgroups are over queries: the gallery stays the whole test set, as it is in use.
    """

    def lacks(self, data: TaskData, encoder: FrozenEncoder) -> str:
        """Why this task cannot be done; empty if it can."""
        settings = data.protocol.settings_as(RetrievalSettings)
        if reason := settings.lacked_by(encoder):
            return reason
        if settings.classes and not data.label_names:
            return "settings.classes needs labels (columns label_…)"
        return "" if settings.classes else data.lacks_reports()

    def run(self, job: Job) -> Iterator[tuple[Cell, Predictions]]:
        """Hits of every query."""
        settings = job.protocol.settings_as(RetrievalSettings)
        found, facts = _embed(job, settings)
        arrays: dict[str, Array] = {}
        if found.report is not None:
            arrays |= _recalls(job, settings, found, facts)
        if settings.classes:
            arrays |= _precisions(job, settings, found, facts)
        arrays |= {_KEPT[0]: found.image} | ({} if found.report is None else {_KEPT[1]: found.report})
        for cell in job.cells:
            yield cell, job.predictions(arrays, facts, found.rows)

    def measures(self, predictions: Predictions) -> Measures:
        """Figures, each the mean over its queries."""
        arrays = predictions.arrays
        return row_means({Measure(name): values for name, values in arrays.items() if name not in _KEPT})


def _embed(job: Job, settings: RetrievalSettings) -> tuple[_Gallery, dict[str, Any]]:
    test, model = job.data.test, job.encoder.run
    kind = model.recipe.data.text if settings.text == "recipe" else settings.text
    texts = np.array(test.texts(kind), dtype=object)
    with_report = texts != ""
    used = with_report if with_report.any() else _classes(test.labels) >= 0
    if not used.any():
        raise UserError(f"{job.data.name}: no test image has a report or exactly one of the labels")
    studies = test.frame["study_id"].to_numpy(dtype=object)
    rows = _draw(np.flatnonzero(used), studies, settings)
    facts: dict[str, Any] = {
        "text": kind,
        "by": settings.by,
        "images": len(rows),
        "studies": len(set(studies[rows])),
        "images_without_report": int((~with_report).sum()),
        "images_beyond_limit": int(used.sum()) - len(rows),
    }
    whole = len(rows) == len(test)
    pixels = test.pixels if whole else test.pixels[rows]
    image = job.encoder.embed_pixels(pixels, lambda share: job.progress("test images", share / 2))
    report = None
    if with_report.any():
        job.progress("reports", 0.5)
        report = model.embed_text(list(texts[rows]))
        group = right_groups(list(texts[rows]), list(studies[rows]))
    else:
        group = np.unique(studies[rows].astype(str), return_inverse=True)[1]
    facts["distinct_answers"] = len(np.unique(group))
    return _Gallery(rows, image, report, list(texts[rows]), group), facts


def _draw(rows: IntArray, studies: npt.NDArray[np.object_], settings: RetrievalSettings) -> IntArray:
    """At most `limit` rows: whole studies, in the order of a random draw, put back in their own order.

    Raises:
        UserError: the first study drawn has more images than that.
    """
    if settings.limit is None or len(rows) <= settings.limit:
        return rows
    names, number, images = np.unique(studies[rows].astype(str), return_inverse=True, return_counts=True)
    order = np.random.default_rng(settings.seed).permutation(len(names))
    taken = order[np.cumsum(images[order]) <= settings.limit]
    if len(taken) == 0:
        raise UserError(
            f"settings.limit={settings.limit} leaves no study: the first one drawn has {images[order[0]]} images; "
            f"with {images.max()} or more any study fits"
        )
    return rows[np.isin(number, taken)]


def _recalls(job: Job, settings: RetrievalSettings, found: _Gallery, facts: dict[str, Any]) -> dict[str, Array]:
    """Hits by name; report to image comes first, at the largest k, which tables show."""
    arrays: dict[str, Array] = {}
    for name, hits in zip(_WAYS, _hits(job, settings, found), strict=True):
        arrays |= {f"{name}_r@{k}": hits[k] for k in sorted(settings.ks, reverse=True)}
    facts["chance_r"] = {f"r@{k}": chance_recall(found.group, found.group, k) for k in settings.ks}
    return arrays


def _hits(job: Job, settings: RetrievalSettings, found: _Gallery) -> Iterator[dict[int, FloatArray]]:
    """Of reports that search images, then of images that search reports: hits (n,) of each k."""
    group, image, report = found.group, found.image, found.report
    assert report is not None
    if settings.by == "global":
        for query, gallery in ((report, image), (image, report)):
            yield recall_at_k(query, gallery, group, group, settings.ks)
        return
    batches = job.encoder.batches(job.data.test.pixels[found.rows], lambda share: job.progress("scores", share))
    scores = job.encoder.run.report_scores(batches, found.texts, settings.by)
    for each in (scores.T, scores):
        yield recall_of_scores(each, group, group, settings.ks)


def _precisions(job: Job, settings: RetrievalSettings, found: _Gallery, facts: dict[str, Any]) -> dict[str, Array]:
    """Shares by name, NaN for images that have none or several of the labels; those are in no gallery either."""
    labels = _classes(job.data.test.labels)[found.rows]
    single = np.flatnonzero(labels >= 0)
    names, model = job.data.label_names, job.encoder.run
    counts = {name: int((labels == number).sum()) for number, name in enumerate(names)}
    facts["images_by_class"] = counts
    facts["images_without_single_class"] = int((labels < 0).sum())
    if len(single) == 0 or min(count for count in counts.values() if count) < 2:
        raise UserError(f"{job.data.name}: precision by class needs two images a class (found: {counts})")
    book = load_prompts(settings.prompts)
    said = [(text, number) for number, name in enumerate(names) for text in book.of(name).positive]
    texts, owners = [text for text, _ in said], np.array([number for _, number in said])
    facts |= book.facts(names) | {"prompts_in_gallery": len(texts)}
    own, image, searches = (
        labels[single],
        found.image[single],
        dict[str, tuple[Floats, Floats, IntArray, bool]](),
    )
    if found.report is not None:
        report = found.report[single]
        searches = {"image_to_report": (image, report, own, False), "report_to_image": (report, image, own, False)}
    searches["image_to_prompt"] = (image, model.embed_text(texts), owners, False)
    searches["image_to_image"] = (image, image, own, True)
    arrays: dict[str, Array] = {}
    chance: dict[str, float] = {}
    for name, (query, gallery, offered, skip_self) in searches.items():
        shares = precision_at_k(query, gallery, own, offered, settings.class_ks, skip_self)
        chance[name] = chance_precision(own, offered, skip_self)
        for k in settings.class_ks:
            column = np.full(len(labels), np.nan)
            column[single] = shares[k]
            arrays[f"{name}_p@{k}"] = column
    facts["chance_p"] = chance
    return arrays


def _classes(labels: npt.NDArray[np.float64]) -> IntArray:
    """(n, C) -> (n,) the only label that is 1, or -1."""
    positive = labels == 1
    return np.where(positive.sum(axis=1) == 1, positive.argmax(axis=1), -1)


def right_groups(texts: Sequence[str], studies: Sequence[str]) -> npt.NDArray[np.intp]:
    """Numbers (n,), equal for rows that are right answers to each other.

    Those are rows of one study and rows whose reports are equal sentence by sentence (case, white space and closing
    punctuation aside), and rows that such steps connect.
    """
    normalised = ["\n".join(map(normalise_sentence, split_sentences(text))) for text in texts]
    pairs = []
    for key in (normalised, list(studies)):
        _, first, place = np.unique(np.asarray(key), return_index=True, return_inverse=True)
        pairs.append(np.column_stack([np.arange(len(key)), first[place]]))
    return connected(len(normalised), np.concatenate(pairs))


TASK = Retrieval()
