"""Masked radiographs, rebuilt with the right report and with another one."""

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cmcgns.data.order import BatchRequest
from cmcgns.inspect.figures import (
    FAINT,
    INK,
    SMALL,
    TEXT,
    cover,
    draw_boxes,
    new_figure,
    range_bar,
    show_map,
    show_radiograph,
)
from cmcgns.inspect.findings import choose_rows
from cmcgns.inspect.material import Floats, Material
from cmcgns.objectives.masked_reconstruction import draw_hidden, to_pixels

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


def why_absent(material: Material) -> str:
    """Why there is nothing to show, or an empty text."""
    recipe = material.model.recipe
    if material.model.task.objective.reconstruction is None:
        return "The run was made without masked reconstruction (objective.reconstruction: off)."
    if recipe.reconstruction.epochs == 0 or recipe.objective.weight_reconstruction == 0:
        return "The run has a decoder, but Stage II did not train it (no epochs, or weight 0)."
    return ""


def rebuild_examples(material: Material, count: int = 6, seed: int = 0) -> list[Rebuilt]:
    """Rebuild studies with findings; of many random masks, the one that hides most of the boxes is taken."""
    return [_rebuild(material, row, seed) for row in choose_rows(material, count)]


@torch.no_grad()
def _rebuild(material: Material, row: int, seed: int) -> Rebuilt:
    task, settings = material.model.task, material.model.task.settings
    reconstruction = task.objective.reconstruction
    assert reconstruction is not None
    hidden = _choose_mask(material, row, seed)
    image = material.dataset[BatchRequest(np.array([row]))].images
    covered = to_pixels(hidden, material.grid, (image.shape[-2], image.shape[-1]))
    patches = material.patches[row][None]
    if settings.mask == "pixels":
        patches = task.model.project_patches(task.model.image_encoder.tokens(image * ~covered))
    other = other_report(material, row)
    rebuilt = []
    for source in (row, other):
        sentences = material.sentence_features[source][None]
        mask = torch.ones(sentences.shape[:2], dtype=torch.bool)
        output = reconstruction.reconstruct(patches, hidden, sentences, mask, task.objective.attention)
        rebuilt.append(torch.where(covered, output.clamp(-1, 1), image)[0, 0].numpy())
    return Rebuilt(row, other, image[0, 0].numpy(), covered[0, 0].numpy(), *rebuilt)


def other_report(material: Material, row: int) -> int:
    """The next study with another report and, where findings have boxes, without a finding in common."""
    labels = {box.label for box in material.boxes[row]}
    later = [(row + step) % len(material) for step in range(1, len(material))]
    different = [other for other in later if material.report_text[other] != material.report_text[row]]
    apart = [other for other in different if not labels & {box.label for box in material.boxes[other]}]
    return (apart or different or [row])[0]


def _choose_mask(material: Material, row: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + row)
    size, ratio = material.dataset.settings.image_size, material.model.task.settings.mask_ratio
    masks = draw_hidden(DRAWS, material.patches.shape[1], ratio, generator)
    inside = torch.zeros(size, size)
    for box in material.boxes[row]:
        x0, y0, x1, y1 = (round(value * size) for value in (box.x0, box.y0, box.x1, box.y1))
        inside[y0:y1, x0:x1] = 1
    covered = (to_pixels(masks, material.grid, (size, size))[:, 0] * inside).sum((1, 2))
    return masks[covered.argmax()][None]


def draw_reconstructions(material: Material, examples: list[Rebuilt]) -> Figure:
    """A row a study: original, hidden, rebuilt with the right and another report, and what the report changed."""
    helps = material.model.task.settings.reconstruction == "cross_modal"
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
            draw_boxes(axes, material.boxes[example.row], width=1.3)
            if line == 0:
                axes.set_title(head, fontsize=TEXT, color=INK, pad=7)
        _name_findings(axes_of_row[0], material, example.row)
    range_bar(axes_of_row[-1], drawn, digits=2)
    return figure


def _name_findings(axes: Axes, material: Material, row: int) -> None:
    """Labels with sides and degrees, left of a row."""
    found = list(dict.fromkeys((box.label, box.details) for box in material.boxes[row]))
    if len(found) > 4:
        found = [*found[:3], (f"and {len(found) - 3} more", "")]
    for number, (label, details) in enumerate(found or [(material.dataset.study_ids[row], "")]):
        middle = 0.5 + 0.23 * ((max(len(found), 1) - 1) / 2 - number)
        for text, shift, size, colour in ((label, 0.045, TEXT, INK), (details, -0.055, SMALL, FAINT)):
            axes.text(-0.08, middle + shift, text, ha="right", va="center", fontsize=size, color=colour,
                      transform=axes.transAxes)  # fmt: skip
