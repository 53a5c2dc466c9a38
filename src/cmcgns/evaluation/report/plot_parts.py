"""What the plots of results share: colours by encoder, whiskers, panels, legends."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cmcgns.evaluation.report.numbers import is_number
from cmcgns.evaluation.results import ResultRow
from cmcgns.inspect.figures import BLUE, GREEN, INK, ORANGE, PURPLE, SKY, SMALL, VERMILION, new_figure, style_plot

COLOURS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY)
MARKERS = ("o", "s", "D", "^", "v", "P")
WIDTH = 11.2  # inches
LEGEND = 0.5


def whisker(axes: Axes, row: ResultRow, place: float, index: int, horizontal: bool, name: str) -> None:
    """A point with its interval; `name` for the legend, empty for none."""
    colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
    if is_number(row.low) and is_number(row.high):
        (axes.hlines if horizontal else axes.vlines)(place, row.low, row.high, color=colour, linewidth=1.8)
    point = (row.value, place) if horizontal else (place, row.value)
    label = plain(name) if name else None
    axes.plot(
        *point, marker, color=colour, markersize=6.5, markeredgecolor="white", linestyle="", label=label, zorder=3
    )


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


def shared_legend(figure: Figure, panels: Sequence[Axes], below: int = 0) -> None:
    """One legend for all panels, below them; none for so few names as `below`."""
    named: dict[str, Artist] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    if len(named) > below:
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
