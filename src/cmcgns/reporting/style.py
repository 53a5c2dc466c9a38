"""The look that all pictures share: colours, type sizes, radiographs, boxes, saving."""

import io
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from cmcgns.common.files import write_bytes
from cmcgns.common.page import data_url

# Okabe and Ito (2008): told apart with every kind of colour vision.
BLUE, ORANGE, GREEN, VERMILION, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
INK, FAINT, GRID = "#22303C", "#6B7885", "#E4E8EC"
BOX, HIDDEN = "#4FB7FF", "#6F8AA3"
TITLE, TEXT, SMALL = 12.5, 11.0, 9.5  # points
DPI = 115
WIDTH, LEGEND = 11.2, 0.5  # of a page, and of what stands below its plots, in inches

_SQUARE = (0.0, 1.0, 1.0, 0.0)  # left, right, bottom, top

# From nothing to a strong colour, so that the radiograph shows through where the value is low. The boxes are blue,
# which every kind of colour vision tells from it.
OVERLAY = LinearSegmentedColormap.from_list(
    "overlay", [(1.0, 0.9, 0.55, 0.0), (1.0, 0.8, 0.3, 0.18), (1.0, 0.6, 0.1, 0.5), (0.85, 0.25, 0.0, 0.8)]
)


@dataclass(frozen=True)
class Box:
    """A finding's place, in fractions of the encoder's input, and what it is."""

    x0: float
    y0: float
    x1: float
    y1: float
    label: str
    side: str
    degree: str

    @property
    def details(self) -> str:
        """Side and degree for people, as `right, small`."""
        return ", ".join(part for part in (self.side, self.degree) if part not in ("", "none"))


def new_figure(width: float, height: float) -> Figure:
    """An empty white figure of so many inches; no global state of matplotlib is touched."""
    return Figure(figsize=(width, height), dpi=DPI, facecolor="white")


def save_picture(figure: Figure, path: Path) -> Path:
    """Write a PNG that holds nothing but the picture, so that equal figures give equal files.

    Raises:
        UserError: the disk is full or refuses the file.
    """
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=figure.dpi, metadata={"Software": None})
    write_bytes(path, content.getvalue(), durable=False)
    return path


def save_pictures(folder: Path, figures: Mapping[str, Figure], kinds: Sequence[str]) -> dict[str, Markup]:
    """Write figures as `pictures/NAME.png`; their content by name, for pages that hold it.

    Args:
        folder: of the report.
        figures: by name.
        kinds: how names begin; pictures of these kinds that an earlier report left are removed, others stay.
    """
    place = folder / "pictures"
    for old in (path for kind in kinds for path in place.glob(f"{kind}-*.png")):
        old.unlink()
    images = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # names in scripts that the font lacks
        for name, figure in figures.items():
            images[name] = data_url("png", save_picture(figure, place / f"{name}.png").read_bytes())
    return images


def style_plot(axes: Axes, title: str, xlabel: str = "", ylabel: str = "") -> None:
    """A quiet plot: title at the left, light grid, no frame."""
    axes.set_title(title, loc="left", fontsize=TITLE, color=INK, fontweight="bold", pad=9)
    axes.set_xlabel(xlabel, fontsize=TEXT, color=FAINT)
    axes.set_ylabel(ylabel, fontsize=TEXT, color=FAINT)
    axes.tick_params(labelsize=SMALL, colors=FAINT, length=0)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(GRID)


def new_panels(count: int, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    """As many panels as needed, a lone one not stretched over the page."""
    across = min(columns, count)
    down = -(-count // columns)
    width = WIDTH if across == columns else WIDTH * across / columns + 0.6
    figure = new_figure(max(width, 5.6), height * down + LEGEND)
    panels = [figure.add_subplot(down, across, place + 1) for place in range(count)]
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1, wspace=0.04, hspace=0.06)
    return figure, panels


def title_panel(axes: Axes, title: str, xlabel: str = "", ylabel: str = "", width: int = 32) -> None:
    """The look of a panel, its title broken at `width` letters."""
    style_plot(axes, textwrap.fill(plain(title, 2 * width), width), xlabel, ylabel)


def shared_legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """One legend for all panels, below them; none without names."""
    named: dict[str, Artist] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    if named:
        columns = max(1, min(len(named), 110 // (max(len(name) for name in named) + 6)))
        figure.legend(
            list(named.values()), list(named), loc="outside lower center", ncols=columns, fontsize=SMALL + 0.5,
            labelcolor=INK, frameon=False, handlelength=1.8, columnspacing=2.2,
        )  # fmt: skip


def plain(text: str, length: int = 48) -> str:
    """A name as a picture can show it: one line, not too long, dollars no formulas."""
    text = " ".join(text.split())
    text = text if len(text) <= length else f"{text[: length - 1]}…"
    return text.replace("$", r"\$")


def name_lines(figure: Figure, axes: Axes, names: Sequence[str]) -> None:
    """Lines from top to bottom, each with a name at its left."""
    axes.set_yticks(range(len(names)), labels=[plain(name, 72) for name in names])
    axes.tick_params(axis="y", labelsize=TEXT - 0.5, labelcolor=INK)
    axes.set_ylim(len(names) - 0.4, -0.6)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)


def draw_difference(
    axes: Axes,
    place: float,
    value: float,
    low: float | None,
    high: float | None,
    clear: bool,
    colour: str = BLUE,
    label: str = "",
) -> None:
    """A point at the height `place`, with its interval where it has one; filled where that leaves out 0.

    Args:
        axes: of the plot.
        place: height.
        value: of the difference.
        low: lower end of its interval.
        high: upper end.
        clear: whether the interval leaves out 0.
        colour: of all of it.
        label: for a legend; empty: none.
    """
    if low is not None and high is not None:
        axes.hlines(place, low, high, color=colour, linewidth=2)
    filled = colour if clear else "white"
    axes.plot(value, place, "o", markersize=7, color=colour, markerfacecolor=filled, zorder=3, label=label or None)


def show_radiograph(axes: Axes, image: NDArray[np.float32], title: str = "") -> None:
    """A gray image in the encoder's range, -1 black and 1 white, on axes without ticks."""
    axes.imshow(image, cmap="gray", vmin=-1, vmax=1, interpolation="bicubic", extent=_SQUARE)
    _bare(axes)
    if title:
        axes.set_title(title, fontsize=TEXT, color=INK, pad=6)


def show_map(axes: Axes, values: NDArray[np.float32], **options: Any) -> Any:
    """A map over the same unit square as the radiograph; returns what a colour bar needs."""
    _bare(axes)
    return axes.imshow(values, extent=_SQUARE, **options)


def draw_boxes(axes: Axes, boxes: Sequence[Box], width: float = 1.6) -> None:
    """Outline findings; boxes are fractions of the image's sides."""
    for box in boxes:
        corner, size = (box.x0, box.y0), (box.x1 - box.x0, box.y1 - box.y0)
        axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor="black", linewidth=width + 1.4, alpha=0.45))
        axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=BOX, linewidth=width))


def cover(axes: Axes, hidden: NDArray[np.bool_]) -> None:
    """Lay a flat colour over hidden pixels (S, S)."""
    colours = ListedColormap([(0, 0, 0, 0), HIDDEN])
    axes.imshow(hidden, cmap=colours, vmin=0, vmax=1, interpolation="nearest", extent=_SQUARE)


def add_legend(axes: Axes) -> None:
    """A legend that stays readable on top of lines."""
    legend = axes.legend(fontsize=SMALL, labelcolor=INK, handlelength=1.4, framealpha=0.9, edgecolor="none")
    legend.set_zorder(5)


def colour_bar(figure: Any, place: Axes, image: Any, digits: int = 3) -> None:
    """A colour bar that fills `place` and names the smallest and the largest value."""
    bar = figure.colorbar(image, cax=place, orientation="horizontal")
    low, high = image.get_clim()
    bar.set_ticks([low, high], labels=[f"{end:.{digits}f}".replace("-", "−") for end in (low, high)])
    bar.outline.set_visible(False)
    place.tick_params(labelsize=SMALL - 1, colors=FAINT, length=0, pad=2)
    first, last = place.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")


def wrap(text: str, width: int, lines: int = 3) -> str:
    """Break text into at most so many lines; what does not fit ends in dots."""
    return "\n".join(textwrap.wrap(text, width, max_lines=lines, placeholder=" …"))


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlim(0, 1)
    axes.set_ylim(1, 0)
    for spine in axes.spines.values():
        spine.set_visible(False)
