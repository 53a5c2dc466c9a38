"""Examples of a run: retrieval in both directions, and masked radiographs rebuilt with two reports."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from cmcgns.data.pairs.batch import BatchRequest
from cmcgns.objectives.masked_reconstruction import draw_hidden, to_pixels
from cmcgns.reporting.run_page.heat_maps import box_mask, choose_rows
from cmcgns.reporting.run_page.studies import EncodedStudies, Floats
from cmcgns.reporting.style import (
    FAINT,
    GREEN,
    INK,
    SMALL,
    TEXT,
    cover,
    draw_boxes,
    new_figure,
    png_data,
    range_bar,
    show_map,
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
    if studies.model.recipe.objective.weight_global == 0:
        return {"absent": "The run was made without the global loss (weight 0), so whole reports were not aligned."}
    found = [_find(studies, row, by_report=True, shown=_IMAGES) for row in choose_rows(studies, 4)]
    reverse = [_find(studies, row, by_report=False, shown=3) for row in choose_rows(studies, 2)]
    return {
        "picture": draw_retrieval(studies, found),
        "reverse": [(item, _thumbnail(studies.fine_pixels(item.row))) for item in reverse],
    }


def _thumbnail(image: Floats) -> Markup:
    """An (S, S) image in [-1, 1]."""
    buffer = io.BytesIO()
    Image.fromarray(((image + 1) * 127.5).round().clip(0, 255).astype(np.uint8)).save(buffer, format="PNG")
    return png_data(buffer.getvalue())


def _find(studies: EncodedStudies, row: int, by_report: bool, shown: int) -> Retrieved:
    query, gallery = (studies.report, studies.image) if by_report else (studies.image, studies.report)
    order = (gallery @ query[row]).argsort(descending=True, stable=True).tolist()
    text = studies.report_text
    if not by_report:  # equal reports are one answer
        order = list({int(text[other]): other for other in reversed(order)}.values())[::-1]
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


DRAWS = 64  # masks to choose from
_ROW, _LABEL, _HEAD = 2.25, 1.75, 0.85  # inches


@dataclass(frozen=True)
class Rebuilt:
    """One study; images are (S, S) in the encoder's range, visible patches are pasted from the original.

    Attributes:
        row: the study.
        other: the study whose report was given instead.
        original: what there is to rebuild.
        hidden: (S, S) true where hidden.
        right: rebuilt with its own report.
        wrong: rebuilt with the other report.
    """

    row: int
    other: int
    original: Floats
    hidden: NDArray[np.bool_]
    right: Floats
    wrong: Floats


def show_reconstructions(studies: EncodedStudies) -> dict[str, Any]:
    """The section of studies with findings, rebuilt under the mask that hides most of their boxes; or why none is."""
    recipe, method = studies.model.recipe, studies.model.method
    if method is None or method.reconstruction is None:
        return {"absent": "The run was made without masked reconstruction (objective.reconstruction: off)."}
    if recipe.reconstruction.epochs == 0 or recipe.objective.weight_reconstruction == 0:
        return {"absent": "The run has a decoder, but Stage II did not train it (no epochs, or weight 0)."}
    rebuilt = [_rebuild(studies, row) for row in choose_rows(studies, 6)]
    return {"examples": rebuilt, "picture": draw_reconstructions(studies, rebuilt)}


@torch.no_grad()
def _rebuild(studies: EncodedStudies, row: int) -> Rebuilt:
    method = studies.model.method
    assert method is not None and method.reconstruction is not None  # noqa: PT018 - else there is no section
    hidden = _choose_mask(studies, row)
    image = studies.dataset[BatchRequest(np.array([row]))].images
    covered = to_pixels(hidden, studies.grid, (image.shape[-2], image.shape[-1]))
    patches = method.reconstruction.seen_patches(studies.model.task.model, studies.patches[row][None], image, hidden)
    other = other_report(studies, row)
    rebuilt = []
    for source in (row, other):
        sentences = studies.sentence_features[source][None]
        mask = torch.ones(sentences.shape[:2], dtype=torch.bool)
        output = method.reconstruction.reconstruct(patches, hidden, sentences, mask, method.attention)
        rebuilt.append(torch.where(covered, output.clamp(-1, 1), image)[0, 0].numpy())
    return Rebuilt(row, other, image[0, 0].numpy(), covered[0, 0].numpy(), *rebuilt)


def other_report(studies: EncodedStudies, row: int) -> int:
    """The next study with another report and, where findings have boxes, without a finding in common."""
    labels = {box.label for box in studies.boxes[row]}
    later = [(row + step) % len(studies) for step in range(1, len(studies))]
    different = [other for other in later if studies.report_text[other] != studies.report_text[row]]
    apart = [other for other in different if not labels & {box.label for box in studies.boxes[other]}]
    return (apart or different or [row])[0]


def _choose_mask(studies: EncodedStudies, row: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(row)
    size, ratio = studies.dataset.settings.image_size, studies.model.recipe.objective.mask_ratio
    masks = draw_hidden(DRAWS, studies.patches.shape[1], ratio, generator)
    inside = torch.from_numpy(box_mask(studies.boxes[row], size))
    covered = (to_pixels(masks, studies.grid, (size, size))[:, 0] * inside).sum((1, 2))
    return masks[covered.argmax()][None]


def draw_reconstructions(studies: EncodedStudies, examples: list[Rebuilt]) -> Figure:
    """A row a study: original, hidden, rebuilt with the right and another report, and what the report changed."""
    helps = studies.model.recipe.objective.reconstruction == "cross_modal"
    heads = ["original", "hidden from the decoder", "rebuilt, own report", "rebuilt, other report", "|own − other|"]
    if not helps:
        heads[2:] = ["rebuilt", "|rebuilt − original|"]
    width, height = _LABEL + _ROW * len(heads) + 0.1, _ROW * len(examples) + _HEAD
    figure = new_figure(width, height)
    grid = figure.add_gridspec(
        len(examples), len(heads), left=_LABEL / width, right=1 - 0.1 / width, wspace=0.05, hspace=0.06,
        top=1 - 0.42 / height, bottom=0.42 / height,
    )  # fmt: skip
    differences = [np.abs(e.right - (e.wrong if helps else e.original)) for e in examples]
    largest = max(float(difference.max()) for difference in differences) or 1.0
    for line, (example, difference) in enumerate(zip(examples, differences, strict=True)):
        panels = [example.original, example.original, example.right, *([example.wrong] if helps else [])]
        axes_of_row = [figure.add_subplot(grid[line, column]) for column in range(len(heads))]
        for axes, image in zip(axes_of_row, panels, strict=False):
            show_radiograph(axes, image)
        cover(axes_of_row[1], example.hidden)
        drawn = show_map(axes_of_row[-1], difference, cmap="magma", vmin=0, vmax=largest, interpolation="bicubic")
        for axes, head in zip(axes_of_row, heads, strict=True):
            draw_boxes(axes, studies.boxes[example.row], width=1.3)
            if line == 0:
                axes.set_title(head, fontsize=TEXT, color=INK, pad=7)
        _name_findings(axes_of_row[0], studies, example.row)
    range_bar(axes_of_row[-1], drawn, digits=2)
    return figure


def _name_findings(axes: Axes, studies: EncodedStudies, row: int) -> None:
    """Labels with sides and degrees, left of a row."""
    found = list(dict.fromkeys((box.label, box.details) for box in studies.boxes[row]))
    if len(found) > 4:
        found = [*found[:3], (f"and {len(found) - 3} more", "")]
    for number, (label, details) in enumerate(found or [(studies.dataset.study_ids[row], "")]):
        middle = 0.5 + 0.23 * ((max(len(found), 1) - 1) / 2 - number)
        for text, shift, size, colour in ((label, 0.045, TEXT, INK), (details, -0.055, SMALL, FAINT)):
            axes.text(-0.08, middle + shift, text, ha="right", va="center", fontsize=size, color=colour,
                      transform=axes.transAxes)  # fmt: skip
