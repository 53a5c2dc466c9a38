"""Examples of a run: masked radiographs, or what else is its target, rebuilt with two reports."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from cmcgns.data.pairs.batch import Batch, BatchRequest
from cmcgns.metrics.overlap import box_masks
from cmcgns.objectives.masked_reconstruction import MaskedReconstruction, covered_pixels, draw_hidden
from cmcgns.objectives.reconstruction_targets import restore_patches
from cmcgns.reporting.run_page.heat_maps import choose_rows
from cmcgns.reporting.run_page.studies import EncodedStudies, Floats
from cmcgns.reporting.style import (
    FAINT,
    INK,
    SMALL,
    TEXT,
    colour_bar,
    cover,
    draw_boxes,
    new_figure,
    show_map,
    show_radiograph,
)

DRAWS = 64  # masks to choose from
_ROW, _LABEL, _HEAD = 2.25, 1.75, 0.85  # inches
_STRETCHED = {"high_frequencies": 3.0, "text_map": 1 / 3}  # targets with a picture of their own, and its contrast


@dataclass(frozen=True)
class Rebuilt:
    """One study; images are (S, S) in the encoder's range, visible patches are pasted from the truth.

    Attributes:
        row: the study.
        other: the study whose report was given instead.
        original: the radiograph.
        hidden: (S, S) true where hidden.
        truth: what there is to rebuild; of patch features, which have no picture, an error of 0 (black).
        right: rebuilt with its own report; of patch features the error.
        wrong: rebuilt with the other report.
    """

    row: int
    other: int
    original: Floats
    hidden: NDArray[np.bool_]
    truth: Floats
    right: Floats
    wrong: Floats


def show_reconstructions(studies: EncodedStudies) -> dict[str, Any]:
    """The section of studies with findings, rebuilt under the mask that hides most of their boxes; or why none is."""
    method = studies.model.method
    if method is None:
        name = studies.model.recipe.objective.name
        return {"absent": f"The run has objective.name {name}: rebuilt images are shown of the method itself alone."}
    if method.reconstruction is None:
        return {"absent": "The run was made without masked reconstruction (objective.reconstruction: off)."}
    if not studies.model.rebuilds:
        return {"absent": "The run has a decoder, but Stage II did not train it (no epochs, or weight 0)."}
    rebuilt = [_rebuild(studies, row) for row in choose_rows(studies, 6)]
    return {"examples": rebuilt, "picture": draw_reconstructions(studies, rebuilt)}


@torch.no_grad()
def _rebuild(studies: EncodedStudies, row: int) -> Rebuilt:
    method, net = studies.model.method, studies.model.task.model
    assert method is not None and method.reconstruction is not None  # noqa: PT018 - else there is no section
    rebuilding, hidden = method.reconstruction, _choose_mask(studies, row)
    batch, other = _batch(studies, row), other_report(studies, row)
    features, image = net(batch), rebuilding.images(batch)
    covered = rebuilding.region(hidden, image)
    patches = rebuilding.seen_patches(net, features.patches, batch.images, hidden)
    target = method.target(net, features, batch)
    picture = _Picture(rebuilding, rebuilding.plain(batch), target)
    rebuilt = []
    for source in (batch, _batch(studies, other)):
        sentences = (features if source is batch else net(source)).sentences
        output = rebuilding.reconstruct(patches, hidden, sentences, source.sentence_mask, method.attention)
        rebuilt.append(torch.where(covered, picture(output), picture(target))[0, 0].numpy())
    return Rebuilt(row, other, image[0, 0].numpy(), covered[0, 0].numpy(), picture(target)[0, 0].numpy(), *rebuilt)


def _batch(studies: EncodedStudies, row: int) -> Batch:
    return studies.dataset[BatchRequest(np.array([row]))]


@dataclass(frozen=True)
class _Picture:
    """Turns targets and reconstructions into pictures, (1, 1, S, S) from -1 to 1."""

    rebuilding: MaskedReconstruction
    plain: Tensor
    target: Tensor

    def __call__(self, output: Tensor) -> Tensor:
        settings = self.rebuilding.settings
        if settings.target_per_patch:  # a patch's own mean and contrast are nothing that was to be rebuilt
            output = restore_patches(output, self.plain, self.rebuilding.grid)
        if settings.target == "features":
            output = self.rebuilding.errors(output, self.target) - 1
        stretched = output * _STRETCHED.get(settings.target, 1.0)
        return F.interpolate(stretched.clamp(-1, 1), size=self.plain.shape[-2:], mode="nearest")


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
    masks = draw_hidden(DRAWS, math.prod(studies.grid), ratio, generator)
    corners = size * np.array([(box.x0, box.y0, box.x1, box.y1) for box in studies.boxes[row]], dtype=np.float64)
    inside = box_masks([corners], size)[0]
    covered = (covered_pixels(masks, studies.grid, (size, size))[:, 0] * inside).sum((1, 2))
    return masks[covered.argmax()][None]


def draw_reconstructions(studies: EncodedStudies, examples: list[Rebuilt]) -> Figure:
    """A row a study: original, hidden, rebuilt with the right and another report, and what the report changed."""
    objective = studies.model.recipe.objective
    helps, shows_truth = objective.reconstruction == "cross_modal", objective.target in _STRETCHED
    what = "error" if objective.target == "features" else "rebuilt"
    heads = ["original", "hidden from the decoder"] + ["to rebuild"] * shows_truth
    heads += [f"{what}, own report", f"{what}, other report", "|own − other|"] if helps else [what, "|error|"]
    width, height = _LABEL + _ROW * len(heads) + 0.1, _ROW * len(examples) + _HEAD
    figure = new_figure(width, height)
    grid = figure.add_gridspec(
        len(examples), len(heads), left=_LABEL / width, right=1 - 0.1 / width, wspace=0.05, hspace=0.06,
        top=1 - 0.42 / height, bottom=0.42 / height,
    )  # fmt: skip
    differences = [np.abs(e.right - (e.wrong if helps else e.truth)) for e in examples]
    largest = max(float(difference.max()) for difference in differences) or 1.0
    for line, (example, difference) in enumerate(zip(examples, differences, strict=True)):
        panels = [example.original, example.original, *([example.truth] if shows_truth else []), example.right]
        panels += [example.wrong] if helps else []
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
    below = axes_of_row[-1].inset_axes((0.0, -0.09, 1.0, 0.04))
    colour_bar(figure, below, drawn, digits=2)
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
