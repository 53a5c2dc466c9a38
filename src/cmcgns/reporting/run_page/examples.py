"""Examples of a run: retrieval in both directions."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cmcgns.common.page import data_url
from cmcgns.data.images.read import encode_image
from cmcgns.reporting.run_page.heat_maps import choose_rows
from cmcgns.reporting.run_page.studies import EncodedStudies, Floats
from cmcgns.reporting.style import (
    FAINT,
    GREEN,
    INK,
    SMALL,
    TEXT,
    new_figure,
    show_radiograph,
    wrap,
)

_IMAGES = 5


@dataclass(frozen=True)
class Retrieved:
    """What one query found."""

    row: int
    best: list[int]
    right: list[bool]
    rank: int


def show_retrieval(studies: EncodedStudies) -> dict[str, Any]:
    """The section of both directions, for the first studies with findings; or why there is none."""
    if reason := studies.model.lacks("global"):
        return {"absent": f"{reason[0].upper()}{reason[1:]}, so whole reports find no images."}
    found = [_find(studies, row, by_report=True, shown=_IMAGES) for row in choose_rows(studies, 4)]
    reverse = [_find(studies, row, by_report=False, shown=3) for row in choose_rows(studies, 2)]
    return {
        "picture": draw_retrieval(studies, found),
        "reverse": [(item, _thumbnail(studies.fine_pixels(item.row))) for item in reverse],
    }


def _thumbnail(image: Floats) -> Markup:
    """An (S, S) image in [-1, 1]."""
    pixels = ((image + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
    return data_url("png", encode_image(pixels, lossless=True))


def _find(studies: EncodedStudies, row: int, by_report: bool, shown: int) -> Retrieved:
    query, gallery = (studies.report, studies.image) if by_report else (studies.image, studies.report)
    order = (gallery @ query[row]).argsort(descending=True, stable=True).tolist()
    text = studies.report_text
    if not by_report:  # equal reports are one answer
        best: dict[int, int] = {}
        for other in order:
            best.setdefault(int(text[other]), other)
        order = list(best.values())
    right = [bool(text[other] == text[row]) for other in order]
    return Retrieved(row, order[:shown], right[:shown], right.index(True) + 1)


def draw_retrieval(studies: EncodedStudies, found: list[Retrieved]) -> Figure:
    """A row a report: its text, then the images it finds, its own one framed."""
    side, column, head = 1.95, 3.0, 0.45
    width, height = column + side * _IMAGES + 0.1, (side + 0.22) * len(found) + head
    figure = new_figure(width, height)
    grid = figure.add_gridspec(
        len(found), _IMAGES, left=column / width, right=1 - 0.1 / width, top=1 - head / height, bottom=0.12 / height,
        wspace=0.06, hspace=0.1,
    )  # fmt: skip
    for line, result in enumerate(found):
        plots = [figure.add_subplot(grid[line, place]) for place in range(_IMAGES)]
        for place, axes in enumerate(plots):
            axes.axis("off")
            if place < len(result.best):
                show_radiograph(axes, studies.fine_pixels(result.best[place]))
                axes.axis("on")
                if result.right[place]:
                    frame = Rectangle((0.012, 0.012), 0.976, 0.976, fill=False, edgecolor=GREEN, linewidth=4.5)
                    axes.add_patch(frame)
            if line == 0:
                axes.set_title("nearest" if place == 0 else f"rank {place + 1}", fontsize=TEXT, color=INK, pad=7)
        text = wrap(" ".join(studies.frame["text"][result.row].split()), 33, 8)
        first = plots[0].transAxes
        plots[0].text(-1.5, 0.98, text, fontsize=SMALL + 1, color=INK, va="top", transform=first, linespacing=1.35)
        note = f"own image at rank {result.rank} of {len(studies)}"
        plots[0].text(-1.5, 0.02, note, fontsize=SMALL, color=GREEN if result.rank <= _IMAGES else FAINT,
                      fontweight="bold", transform=first)  # fmt: skip
    return figure
