"""Heat maps of sentences: one that states a finding, beside its place, and one whose finding is absent."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cmcgns.data.manifest import LABEL
from cmcgns.data.pairs.batch import BatchRequest
from cmcgns.pretrained import Pretrained
from cmcgns.pretrained.phrase_maps import to_pixels
from cmcgns.reporting.run_page.studies import EncodedStudies, Floats, Statement
from cmcgns.reporting.style import (
    INK,
    OVERLAY,
    SMALL,
    colour_bar,
    draw_boxes,
    new_figure,
    show_map,
    show_radiograph,
    wrap,
)

_EXAMPLES, _SIDE = 6, 256
Scale = tuple[float, float]
"""Values at which the colours of all maps of a page begin and end."""


def choose_statements(studies: EncodedStudies, count: int) -> list[Statement]:
    """The first statement of every label, then the second ones, no study twice: nothing is chosen by its result."""
    by_label: dict[str, list[Statement]] = {}
    for statement in studies.statements:
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
class HeatMap:
    """Where a sentence belongs in a study, (h, w) over the patches."""

    sentence: str
    values: Floats


@dataclass(frozen=True)
class Example:
    """A study with a statement of its report, and beside it one of another report about a finding it does not have.

    Attributes:
        statement: the sentence and its boxes.
        present: map of that sentence.
        absent: map of the other one; None where every label with boxes is in the study.
    """

    statement: Statement
    present: HeatMap
    absent: HeatMap | None


def show_heat_maps(studies: EncodedStudies) -> dict[str, Any]:
    """The section of the first sentences that state each finding, or why there is none."""
    model = studies.model
    if reason := model.lacks_map(model.map):
        return {"absent": f"No map of phrases was trained: {reason}."}
    if not any(studies.boxes):
        return {"absent": "The table gives no finding boxes, so there is no true place to compare with."}
    if not studies.statements:
        return {"absent": "No sentence was found that states a finding with a box."}
    examples = make_examples(studies, _EXAMPLES)
    scale = scale_of(model, examples)
    return {
        "examples": examples,
        "scale": scale,
        "picture": draw_heat_maps(studies, examples, scale),
        "kind": model.map,
        "measured": model.map_range is not None,
        "present": model.scores.present.get(model.map),
        "studies": model.scores.studies,
    }


def make_examples(studies: EncodedStudies, count: int) -> list[Example]:
    """The first statements of each finding, with their maps."""
    first = {statement.label: statement for statement in reversed(studies.statements)}
    examples = []
    for statement in choose_statements(studies, count):
        there = _findings(studies, statement.row, first)
        after = sorted(first, key=lambda label: (label <= statement.label, label))  # the next one in the alphabet
        absent = next((first[label] for label in after if label not in there), None)
        texts = [studies.sentences[each.row][each.sentence] for each in (statement, absent) if each is not None]
        maps = [
            HeatMap(text, values) for text, values in zip(texts, _maps(studies, statement.row, texts), strict=True)
        ]
        examples.append(Example(statement, maps[0], maps[1] if absent else None))
    return examples


def _findings(studies: EncodedStudies, row: int, labels: Iterable[str]) -> set[str]:
    """Which of some findings a study has, as far as boxes, its report or a label say: not every finding has a box."""
    about, boxed = studies.frame.iloc[row], {box.label for box in studies.boxes[row]}
    return {
        label
        for label in labels
        if label in boxed
        or pd.to_numeric(about.get(f"{LABEL}{label}", ""), errors="coerce") == 1  # text in a csv table, or pd.NA
        or any(studies.book.states(sentence, label) for sentence in studies.sentences[row])
    }


@torch.no_grad()
def _maps(studies: EncodedStudies, row: int, texts: list[str]) -> Floats:
    """(K, h, w) of sentences, each encoded alone, in one study: by the map that the run's validation chose."""
    model = studies.model
    tokens = model.task.model.image_encoder.tokens(studies.dataset[BatchRequest(np.array([row]))].images)
    maps: Floats = model.patch_maps(tokens, model.encode_texts(texts), model.map)[0].numpy()
    return maps.reshape(len(texts), *studies.grid)


def scale_of(model: Pretrained, examples: Sequence[Example]) -> Scale:
    """As the run's validation says; of a run that kept nothing, the range of all maps that are shown."""
    if model.map_range is not None:
        return model.map_range
    shown = [each.values for example in examples for each in (example.present, example.absent) if each]
    return min(float(each.min()) for each in shown), max(float(each.max()) for each in shown)


def show_overlay(axes: Axes, values: Floats, scale: Scale) -> Any:
    """A map (h, w) over a radiograph; returns what a colour bar needs."""
    fine = to_pixels(torch.from_numpy(values).flatten()[None], (_SIDE, _SIDE))[0].numpy()
    return show_map(axes, fine, cmap=OVERLAY, vmin=scale[0], vmax=scale[1])


def draw_heat_maps(studies: EncodedStudies, examples: list[Example], scale: Scale) -> Figure:
    """Two studies a row, three pictures each: the finding's box, its sentence's map, that of an absent finding."""
    lines = -(-len(examples) // 2)
    height = 2.72 * lines + 0.8
    figure = new_figure(13, height)
    outer = figure.add_gridspec(
        lines, 2, left=0.012, right=0.988, top=1 - 0.62 / height, bottom=0.6 / height, wspace=0.05, hspace=0.3
    )
    shown = None
    for number, example in enumerate(examples):
        inner = outer[divmod(number, 2)].subgridspec(1, 3, wspace=0.04)
        plots = [figure.add_subplot(inner[column]) for column in range(3)]
        heads = (f"box: {example.statement.label}", quoted(example.present), quoted(example.absent))
        for axes, head in zip(plots, heads, strict=True):
            show_radiograph(axes, studies.fine_pixels(example.statement.row))
            axes.set_title(head, fontsize=SMALL, color=INK, loc="left", pad=4, linespacing=1.15)
        for axes, heat in zip(plots[1:], (example.present, example.absent), strict=True):
            shown = show_overlay(axes, heat.values, scale) if heat else shown
        for axes in plots[:2]:
            draw_boxes(axes, example.statement.boxes)
    bar = figure.add_axes((0.36, 0.3 / height, 0.28, 0.1 / height))
    colour_bar(figure, bar, shown)
    return figure


def quoted(heat: HeatMap | None) -> str:
    """A heading of at most three lines."""
    return wrap(f"“{heat.sentence}”", 29, 3) if heat else "no finding is absent"
