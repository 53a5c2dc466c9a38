"""Plots of results, in panels or line by line: values with their intervals, an encoder in one colour everywhere."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TypeGuard

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cmcgns.evaluation.figures import ReliabilityCurve
from cmcgns.evaluation.results import ResultRow
from cmcgns.reporting.evaluation import build
from cmcgns.reporting.evaluation.names import fraction_name, is_number, metric_name, of_the_labels, protocol_title
from cmcgns.reporting.evaluation.selection import Selection
from cmcgns.reporting.style import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    LEGEND,
    ORANGE,
    PURPLE,
    SKY,
    SMALL,
    VERMILION,
    WIDTH,
    name_lines,
    new_figure,
    new_panels,
    plain,
    shared_legend,
    style_plot,
    title_panel,
)

COLOURS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY)
MARKERS = ("o", "s", "D", "^", "v", "P")
PUBLISHED = "#8A949E"
DASHED = (0, (4, 3))  # of a line

Floats = NDArray[np.floating]
Rows = Sequence[ResultRow | None]  # one an encoder, or one a place


def draw_fractions(selection: Selection, protocols: Sequence[str]) -> Figure:
    """The primary metric against the share of the labels, a panel a protocol."""
    shown = [name for name in protocols if len(selection.fractions(name)) > 1]
    figure, panels = new_panels(len(shown), 3, 3.3)
    for axes, name in zip(panels, shown, strict=True):
        ticks = [float(fraction) for fraction in selection.fractions(name) if fraction is not None]
        metric = selection.primary(name)
        title_panel(axes, protocol_title(name, selection.about), "Share of the labels", metric_name(metric))
        for index, encoder in enumerate(selection.encoders):
            rows = [selection.find(name, encoder, metric, fraction=tick) for tick in ticks]
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
        for index, encoder in enumerate(selection.encoders):
            places = np.arange(len(metrics)) + (index - (len(selection.encoders) - 1) / 2) * width
            _bars(axes, places, [found[metric][index] for metric in metrics], index, min(width, 0.5), encoder)
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
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=DASHED, zorder=1)
        for curve in (one for one in curves if (one.label, one.fraction) == (label, fraction)):
            colour, marker = _look(encoders.index(curve.encoder))
            count = np.array(curve.count, dtype=float)
            axes.plot(curve.predicted, curve.observed, color=colour, linewidth=1.4, alpha=0.7)
            sizes = 14 + 130 * count / max(count.max(initial=1), 1)
            axes.scatter(
                curve.predicted, curve.observed, s=sizes, color=colour, marker=marker, label=plain(curve.encoder),
                alpha=0.85, linewidths=0.8, edgecolors="white", zorder=3,
            )  # fmt: skip
        axes.set_xlim(-0.04, 1.04)
        axes.set_ylim(-0.04, 1.04)
        axes.set_aspect("equal")
    shared_legend(figure, panels)
    return figure


def draw_classes(selection: Selection, protocol: str) -> Figure:
    """The primary metric of each class at the largest fraction, with intervals; the best class above."""
    metric, fraction = selection.primary(protocol), selection.fractions(protocol)[-1]
    encoders = selection.encoders_of(protocol)
    lines = [
        (label, [selection.find(protocol, encoder, metric, label, fraction=fraction) for encoder in encoders])
        for label in [*selection.labels(protocol, metric), ""]
    ]
    _, mean = lines.pop()
    lines.sort(key=lambda line: _value(line[1][0], -np.inf), reverse=True)
    return _forest(selection, encoders, [*lines, ("mean over classes", mean)], metric)


def draw_subgroups(selection: Selection, protocol: str) -> Figure:
    """A forest plot: everyone first, then the subgroups with their numbers of patients."""
    metric, fraction = selection.primary(protocol), selection.fractions(protocol)[-1]
    encoders, lines = selection.encoders_of(protocol), []
    for group in ["", *selection.groups_with_figures(protocol)]:
        rows = [selection.find(protocol, encoder, metric, group=group, fraction=fraction) for encoder in encoders]
        count = max((row.patients for row in rows if row), default=0)
        lines.append((f"{group or 'everyone'}  ({count:,} patients)", rows))
    figure = _forest(selection, encoders, lines, metric)
    for encoder, row in zip(encoders, lines[0][1], strict=True):
        if _defined(row):
            colour, _ = _look(selection.encoders.index(encoder))
            figure.axes[0].axvline(_value(row, 0), color=colour, linewidth=1, alpha=0.45, zorder=1)
    return figure


def _forest(selection: Selection, encoders: Sequence[str], lines: Sequence[tuple[str, Rows]], metric: str) -> Figure:
    """Lines of points with whiskers from top to bottom, each with a name and a row for each encoder."""
    step = 0.24 + 0.13 * len(encoders)
    figure = new_figure(WIDTH, 1.0 + step * len(lines) + (LEGEND if len(encoders) > 1 else 0))
    axes = figure.add_subplot()
    style_plot(axes, "", metric_name(metric))
    for position, encoder in enumerate(encoders):
        shift = (position - (len(encoders) - 1) / 2) * 0.62 / max(len(encoders), 1)
        for place, (_, rows) in enumerate(lines):
            if _defined(row := rows[position]):
                _whisker(axes, row, place + shift, selection.encoders.index(encoder), horizontal=True, name=encoder)
    for place, (_, rows) in enumerate(lines):
        if not any(map(_defined, rows)):  # a word, so that a gap is no riddle
            axes.text(
                0.01, place, "undefined", transform=axes.get_yaxis_transform(), fontsize=SMALL, color=FAINT,
                va="center", style="italic", zorder=4,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
            )  # fmt: skip
    if metric == "auroc":
        axes.axvline(0.5, color=FAINT, linewidth=1, linestyle=DASHED, zorder=1)
        axes.annotate(
            "chance", (0.5, 1), xycoords=("data", "axes fraction"), xytext=(0, 3), textcoords="offset points",
            ha="center", fontsize=SMALL, color=FAINT,
        )  # fmt: skip
    name_lines(figure, axes, [name for name, _ in lines])
    shared_legend(figure, [axes], below=1)
    return figure


def _whisker(axes: Axes, row: ResultRow, place: float, index: int, horizontal: bool, name: str) -> None:
    """A point with its interval; `name` for the legend, empty for none."""
    colour, marker = _look(index)
    if is_number(row.low) and is_number(row.high):
        (axes.hlines if horizontal else axes.vlines)(place, row.low, row.high, color=colour, linewidth=1.8)
    point = (row.value, place) if horizontal else (place, row.value)
    label = plain(name) if name else None
    axes.plot(
        *point, marker, color=colour, markersize=6.5, markeredgecolor="white", linestyle="", label=label, zorder=3
    )


def _whiskers(axes: Axes, places: Floats, rows: Rows, index: int, name: str) -> None:
    """Points with whiskers joined by a line; undefined ones leave a gap."""
    axes.plot(places, [_value(row, np.nan) for row in rows], "-", color=_look(index)[0], linewidth=1.8, zorder=2)
    for place, row in zip(places, rows, strict=True):
        if _defined(row):
            _whisker(axes, row, float(place), index, horizontal=False, name=name)
            name = ""


def _bars(axes: Axes, places: Floats, rows: Rows, index: int, width: float, name: str) -> None:
    values = [_value(row, 0.0) for row in rows]
    axes.bar(places, values, width * 0.92, color=_look(index)[0], alpha=0.85, label=plain(name))
    for place, row in zip(places, rows, strict=True):
        if row is not None and is_number(row.low) and is_number(row.high):
            axes.vlines(place, row.low, row.high, color=INK, linewidth=1.5, zorder=3)
        if not _defined(row):
            axes.text(place, 0.01, "–", ha="center", color=FAINT, transform=axes.get_xaxis_transform())


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


def _look(index: int) -> tuple[str, str]:
    """Colour and marker of an encoder."""
    return COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]


def _defined(row: ResultRow | None) -> TypeGuard[ResultRow]:
    return row is not None and is_number(row.value)


def _value(row: ResultRow | None, other: float) -> float:
    return row.value if row is not None and is_number(row.value) else other


def _within_unit(rows: Rows) -> bool:
    values = [row.value for row in rows if row is not None and row.value is not None]
    return bool(values) and all(0 <= value <= 1 for value in values)
