"""Where a sentence looks in the image, beside the place of the finding it states."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cmcgns.metrics.interval_table import Interval
from cmcgns.metrics.intervals import mean_interval
from cmcgns.metrics.ranking import RankedScores
from cmcgns.pretrained.prompts import load_prompts, speaks_of_side
from cmcgns.reporting.run_page.studies import EncodedStudies, Floats
from cmcgns.reporting.style import (
    INK,
    OVERLAY,
    SMALL,
    TEXT,
    Box,
    draw_boxes,
    new_figure,
    range_bar,
    show_map,
    show_radiograph,
    wrap,
)


@dataclass(frozen=True)
class Statement:
    """A sentence that states a finding, and the boxes of what it names."""

    row: int
    sentence: int
    label: str
    boxes: tuple[Box, ...]


def statements(studies: EncodedStudies) -> list[Statement]:
    """All sentences that state a finding with a box, in order; a sentence of two findings counts once for each."""
    found, book = [], load_prompts("phantom")
    for row, boxes in enumerate(studies.boxes):
        for label in dict.fromkeys(box.label for box in boxes):
            for number, sentence in enumerate(studies.sentences[row]):
                named = tuple(box for box in boxes if box.label == label and speaks_of_side(sentence, box.side))
                if named and book.states(sentence, label):
                    found.append(Statement(row, number, label, named))
    return found


def choose_statements(studies: EncodedStudies, count: int) -> list[Statement]:
    """The first statement of every label, then the second ones, no study twice: nothing is chosen by its result."""
    by_label: dict[str, list[Statement]] = {}
    for statement in statements(studies):
        by_label.setdefault(statement.label, []).append(statement)
    chosen: list[Statement] = []
    while len(chosen) < count and any(by_label.values()):
        for label in sorted(by_label):
            taken = {statement.row for statement in chosen}
            by_label[label] = [statement for statement in by_label[label] if statement.row not in taken]
            if by_label[label] and len(chosen) < count:
                chosen.append(by_label[label].pop(0))
    return chosen


def choose_rows(studies: EncodedStudies, count: int) -> list[int]:
    """Studies to show: those of the chosen statements, or the first ones where no finding has a box."""
    rows = [statement.row for statement in choose_statements(studies, count)]
    return rows or list(range(min(count, len(studies))))


@dataclass(frozen=True)
class SentenceMaps:
    """Maps (h, w) over the patch grid for one sentence.

    Attributes:
        statement: the sentence and its boxes.
        weights: attention weights of the sentence.
        similarity: cosine of each patch f_I with what the sentence collected, f_I2R.
    """

    statement: Statement
    weights: Floats
    similarity: Floats


def show_attention(studies: EncodedStudies) -> dict[str, Any]:
    """The section of the first sentences that state each finding, or why there is none."""
    if studies.model.method is None or studies.model.recipe.objective.weight_report == 0:
        absent = "The run was made without the local report loss (weight 0), so no sentence learned where to look."
        return {"absent": absent}
    if not any(studies.boxes):
        return {"absent": "The table gives no finding boxes, so there is no true place to compare with."}
    if not statements(studies):
        return {"absent": "No sentence was found that states a finding with a box."}
    maps = [sentence_maps(studies, statement) for statement in choose_statements(studies, 6)]
    return {"maps": maps, "picture": draw_attention(studies, maps), "localisation": localisation(studies)}


@torch.no_grad()
def sentence_maps(studies: EncodedStudies, statement: Statement) -> SentenceMaps:
    """Both maps of a sentence."""
    patches = studies.patches[statement.row][None]
    sentences = studies.sentence_features[statement.row][None]
    mask = torch.ones(sentences.shape[:2], dtype=torch.bool)
    assert studies.model.method is not None  # else there is no section
    attended, weights = studies.model.method.attention.image_to_text(patches, sentences, mask)
    cosine = F.cosine_similarity(patches[0], attended[0, statement.sentence][None], dim=-1)
    return SentenceMaps(
        statement,
        weights[0, statement.sentence].unflatten(0, studies.grid).numpy(),
        cosine.unflatten(0, studies.grid).numpy(),
    )


def localisation(studies: EncodedStudies) -> dict[str, Interval] | None:
    """How well the maps find the boxes: share of (inside, outside) pixel pairs ranked right, 0.5 by chance.

    Returns:
        Means over all sentences that state a finding, with 95 % intervals (patients are drawn); None with
        fewer than two patients.
    """
    values, patients = [], []
    for statement in statements(studies):
        inside = box_mask(statement.boxes)
        if inside.any() and not inside.all():
            maps = sentence_maps(studies, statement)
            scores = np.stack([enlarge(maps.weights).ravel(), enlarge(maps.similarity).ravel()], axis=1)
            ranked = RankedScores(scores, np.stack([inside.ravel()] * 2, axis=1))
            values.append(ranked.auroc(np.ones((1, inside.size)))[0])
            patients.append(studies.frame["patient_id"][statement.row])
    if len(set(patients)) < 2:
        return None
    weights, similarity = np.array(values).T
    return {"weights": mean_interval(weights, patients), "similarity": mean_interval(similarity, patients)}


def enlarge(values: Floats, side: int = 64) -> Floats:
    """(h, w) -> (side, side), interpolated between the patches' centres."""
    tensor = torch.from_numpy(values)[None, None]
    return F.interpolate(tensor, size=(side, side), mode="bilinear", align_corners=False)[0, 0].numpy()


def box_mask(boxes: Sequence[Box], side: int = 64) -> NDArray[np.bool_]:
    """(side, side) true inside any box."""
    mask = np.zeros((side, side), dtype=bool)
    for box in boxes:
        x0, y0, x1, y1 = (round(value * side) for value in (box.x0, box.y0, box.x1, box.y1))
        mask[y0:y1, x0:x1] = True
    return mask


def show_overlay(axes: Axes, values: Floats) -> Any:
    """A map (h, w) over a radiograph, its range stretched to all colours; returns what a colour bar needs."""
    low, high = float(values.min()), float(values.max())
    return show_map(axes, enlarge(values, 256), cmap=OVERLAY, vmin=low, vmax=high)


def draw_attention(studies: EncodedStudies, examples: list[SentenceMaps]) -> Figure:
    """Two sentences a row, three pictures each: the finding's box, attention weights, similarity."""
    lines = -(-len(examples) // 2)
    height = 3.2 * lines + 0.15
    figure = new_figure(13, height)
    outer = figure.add_gridspec(
        lines, 2, left=0.012, right=0.988, top=1 - 0.72 / height, bottom=0.34 / height, wspace=0.05, hspace=0.6
    )
    for number, maps in enumerate(examples):
        inner = outer[divmod(number, 2)].subgridspec(1, 3, wspace=0.04)
        plots = [figure.add_subplot(inner[column]) for column in range(3)]
        image, boxes = studies.fine_pixels(maps.statement.row), maps.statement.boxes
        for axes in plots:
            show_radiograph(axes, image)
        for axes, values in zip(plots[1:], (maps.weights, maps.similarity), strict=True):
            range_bar(axes, show_overlay(axes, values))
        for axes in plots:
            draw_boxes(axes, boxes)
        sentence = studies.sentences[maps.statement.row][maps.statement.sentence]
        plots[0].text(0, 1.16, wrap(f"“{sentence}”", 68, 2), fontsize=TEXT, color=INK, fontweight="bold",
                      transform=plots[0].transAxes, va="bottom", linespacing=1.25)  # fmt: skip
        heads = (f"box: {maps.statement.label}", "attention weight", "similarity")
        for axes, head in zip(plots, heads, strict=True):
            axes.set_title(head, fontsize=SMALL, color=INK, loc="left", pad=4)
    return figure
