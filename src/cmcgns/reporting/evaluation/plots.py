"""Plots of results in panels: every value with its interval, the same colour for the same encoder everywhere."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cmcgns.evaluation.results import ReliabilityCurve, ResultRow
from cmcgns.metrics.ranking import FloatArray
from cmcgns.reporting.evaluation import build
from cmcgns.reporting.evaluation.names import fraction_name, is_number, metric_name, of_the_labels, protocol_title
from cmcgns.reporting.evaluation.selection import Selection
from cmcgns.reporting.style import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    SMALL,
    VERMILION,
    new_figure,
    style_plot,
)

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


PUBLISHED = "#8A949E"


def draw_fractions(selection: Selection, protocols: Sequence[str]) -> Figure:
    """The primary metric against the share of the labels, a panel a protocol."""
    shown = [name for name in protocols if len(selection.fractions(name)) > 1]
    figure, panels = new_panels(len(shown), 3, 3.3)
    for axes, name in zip(panels, shown, strict=True):
        ticks = [float(fraction) for fraction in selection.fractions(name) if fraction is not None]
        title_panel(
            axes, protocol_title(name, selection.about), "Share of the labels", metric_name(selection.primary(name))
        )
        for index, encoder in enumerate(selection.encoders):
            rows = [selection.find(name, encoder, selection.primary(name), fraction=tick) for tick in ticks]
            shift = 1.06 ** (index - (len(selection.encoders) - 1) / 2)
            _whiskers(axes, np.array(ticks) * shift, rows, index, encoder)
        _draw_published(axes, selection, name)
        axes.set_xscale("log")
        axes.set_xticks(ticks, labels=[fraction_name(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set_xlim(ticks[0] / 1.5, ticks[-1] * 1.5)
    shared_legend(figure, panels)
    return figure


def draw_bars(selection: Selection, protocols: Sequence[str]) -> Figure:
    """All metrics between 0 and 1 of detection and segmentation, at the largest fraction."""
    figure, panels = new_panels(len(protocols), 2, 3.3)
    for axes, name in zip(panels, protocols, strict=True):
        fraction = selection.fractions(name)[-1]
        metrics = [selection.primary(name), *build.further_metrics(selection, name)]
        found = {m: [selection.find(name, e, m, fraction=fraction) for e in selection.encoders] for m in metrics}
        metrics = [metric for metric in metrics if _within_unit(found[metric])]
        title_panel(axes, f"{protocol_title(name, selection.about)}, {of_the_labels(fraction)}", width=46)
        width = 0.8 / len(selection.encoders)
        for index in range(len(selection.encoders)):
            places = np.arange(len(metrics)) + (index - (len(selection.encoders) - 1) / 2) * width
            _bars(
                axes,
                np.asarray(places, dtype=np.float64),
                [found[metric][index] for metric in metrics],
                index,
                min(width, 0.5),
                selection,
            )
        letters = 14 if len(metrics) < 6 else 11  # or they would run into each other
        labels = (textwrap.fill(metric_name(metric), letters, break_long_words=False) for metric in metrics)
        axes.set_xticks(range(len(metrics)), labels=list(labels))
        axes.tick_params(axis="x", labelsize=SMALL, labelcolor=INK)
        axes.set_xlim(-0.6, max(len(metrics), 2) - 0.4)
        axes.margins(y=0.08)
        axes.set_ylim(bottom=0)
        axes.grid(visible=False, axis="x")
    shared_legend(figure, panels)
    return figure


def draw_reliability(curves: Sequence[ReliabilityCurve]) -> Figure:
    """Observed against predicted, a panel a class and fraction."""
    about = list(dict.fromkeys((curve.label, curve.fraction) for curve in curves))
    encoders = list(dict.fromkeys(curve.encoder for curve in curves))
    figure, panels = new_panels(len(about), 3, 3.7)
    for axes, (label, fraction) in zip(panels, about, strict=True):
        title = ", ".join(part for part in (label or "all classes", fraction_name(fraction)) if part)
        title_panel(axes, title, "Predicted probability", "Observed share")
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        for curve in (one for one in curves if (one.label, one.fraction) == (label, fraction)):
            index = encoders.index(curve.encoder)
            colour, count = COLOURS[index % len(COLOURS)], np.array(curve.count, dtype=float)
            axes.plot(curve.predicted, curve.observed, color=colour, linewidth=1.4, alpha=0.7)
            sizes = 14 + 130 * count / max(count.max(initial=1), 1)
            marker = MARKERS[index % len(MARKERS)]
            axes.scatter(
                curve.predicted, curve.observed, s=sizes, color=colour, marker=marker, label=plain(curve.encoder),
                alpha=0.85, linewidths=0.8, edgecolors="white", zorder=3,
            )  # fmt: skip
        axes.set_xlim(-0.04, 1.04)
        axes.set_ylim(-0.04, 1.04)
        axes.set_aspect("equal")
    shared_legend(figure, panels)
    return figure


def _whiskers(axes: Axes, places: FloatArray, rows: Sequence[ResultRow | None], index: int, name: str) -> None:
    """Points with whiskers joined by a line; undefined ones leave a gap."""
    values = [row.value if row is not None and is_number(row.value) else np.nan for row in rows]
    axes.plot(places, values, "-", color=COLOURS[index % len(COLOURS)], linewidth=1.8, zorder=2)
    first = True
    for place, row in zip(places, rows, strict=True):
        if row is not None and is_number(row.value):
            whisker(axes, row, float(place), index, horizontal=False, name=name if first else "")
            first = False


def _bars(
    axes: Axes, places: FloatArray, rows: Sequence[ResultRow | None], index: int, width: float, selection: Selection
) -> None:
    colour = COLOURS[index % len(COLOURS)]
    values = [row.value if row is not None and is_number(row.value) else 0.0 for row in rows]
    label = plain(selection.encoders[index])
    axes.bar(places, values, width * 0.92, color=colour, alpha=0.85, label=label)
    for place, row in zip(places, rows, strict=True):
        if row is not None and is_number(row.low) and is_number(row.high):
            axes.vlines(place, row.low, row.high, color=INK, linewidth=1.5, zorder=3)
        if row is None or not is_number(row.value):
            axes.text(place, 0.01, "–", ha="center", color=FAINT, transform=axes.get_xaxis_transform())


def _within_unit(rows: Sequence[ResultRow | None]) -> bool:
    values = [row.value for row in rows if row is not None and row.value is not None]
    return bool(values) and all(0 <= value <= 1 for value in values)


def _draw_published(axes: Axes, selection: Selection, name: str) -> None:
    """Published figures, in gray, beside the legacy protocol alone."""
    for number, (model, values) in enumerate(selection.published(name).items()):
        found = zip(build.PUBLISHED_FRACTIONS, values, strict=False)
        points = [(place, value / 100) for place, value in found if value is not None]
        if points:
            style = ("--", ":", "-.")[number % 3]
            x, y = zip(*points, strict=True)
            axes.plot(
                x, y, style, marker=MARKERS[number % len(MARKERS)], color=PUBLISHED, markerfacecolor="white",
                markersize=5, linewidth=1.2, label=f"{plain(model)}, published", zorder=1.5,
            )  # fmt: skip
