"""Which images a report finds, and which reports an image."""

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cmcgns.inspect.figures import FAINT, GREEN, INK, SMALL, TEXT, new_figure, show_radiograph, wrap
from cmcgns.inspect.findings import choose_rows
from cmcgns.inspect.material import Material

_IMAGES = 5


@dataclass(frozen=True)
class Found:
    """What one query found.

    Attributes:
        row: the query's study.
        best: studies in order of cosine.
        right: for each of them, whether its report equals the query's.
        rank: place of the first right one, from 1.
    """

    row: int
    best: list[int]
    right: list[bool]
    rank: int


def images_for_reports(material: Material, count: int = 4) -> list[Found]:
    """The nearest images of the reports of the first studies with findings."""
    return [_find(material, row, by_report=True, shown=_IMAGES) for row in choose_rows(material, count)]


def reports_for_images(material: Material, count: int = 2, shown: int = 3) -> list[Found]:
    """The nearest distinct reports of images of the first studies with findings."""
    return [_find(material, row, by_report=False, shown=shown) for row in choose_rows(material, count)]


def _find(material: Material, row: int, by_report: bool, shown: int) -> Found:
    query, gallery = (material.report, material.image) if by_report else (material.image, material.report)
    order = (gallery @ query[row]).argsort(descending=True, stable=True).tolist()
    text = material.report_text
    if not by_report:  # equal reports are one answer
        order = list({int(text[other]): other for other in reversed(order)}.values())[::-1]
    right = [bool(text[other] == text[row]) for other in order]
    return Found(row, order[:shown], right[:shown], right.index(True) + 1)


def draw_retrieval(material: Material, found: list[Found]) -> Figure:
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
                show_radiograph(axes, material.fine_pixels(result.best[place]))
                axes.axis("on")
                _frame(axes, result.right[place])
            if line == 0:
                axes.set_title("nearest" if place == 0 else f"rank {place + 1}", fontsize=TEXT, color=INK, pad=7)
        text = wrap(" ".join(material.texts[result.row].split()), 33, 8)
        first = plots[0].transAxes
        plots[0].text(-1.5, 0.98, text, fontsize=SMALL + 1, color=INK, va="top", transform=first, linespacing=1.35)
        note = f"own image at rank {result.rank} of {len(material)}"
        plots[0].text(-1.5, 0.02, note, fontsize=SMALL, color=GREEN if result.rank <= _IMAGES else FAINT,
                      fontweight="bold", transform=first)  # fmt: skip
    return figure


def _frame(axes: Axes, right: bool) -> None:
    if right:
        frame = Rectangle((0.012, 0.012), 0.976, 0.976, fill=False, edgecolor=GREEN, linewidth=4.5)
        axes.add_patch(frame)
