"""Plots of results, in panels or line by line: values with their intervals."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TypeGuard

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cmcgns.evaluation.figures import ReliabilityCurve
from cmcgns.evaluation.results import ResultRow
from cmcgns.reporting.evaluation import build
from cmcgns.reporting.evaluation.names import fraction_name, is_number, metric_name, of_the_labels, protocol_title
from cmcgns.reporting.evaluation.selection import Selection
from cmcgns.reporting.style import (
    BLUE,
    FAINT,
    INK,
    SMALL,
    WIDTH,
    name_lines,
    new_figure,
    new_panels,
    plain,
    shared_legend,
    style_plot,
    title_panel,
)

PUBLISHED, MARKERS = "#8A949E", ("o", "s", "D", "^", "v", "P")  # of models
DASHED = (0, (4, 3))  # of a line

Rows = Sequence[ResultRow | None]  # one a place


def draw_fractions(selection: Selection, protocols: Sequence[str]) -> Figure:
    """The primary metric against the share of the labels, a panel a protocol."""
    shown = [name for name in protocols if len(selection.fractions(name)) > 1]
    figure, panels = new_panels(len(shown), 3, 3.3)
    for axes, name in zip(panels, shown, strict=True):
        ticks = [float(fraction) for fraction in selection.fractions(name) if fraction is not None]
        metric = selection.primary(name)
        title_panel(axes, protocol_title(name, selection.about), "Share of the labels", metric_name(metric))
        rows = [selection.find(name, metric, fraction=tick) for tick in ticks]
        _whiskers(axes, ticks, rows, selection.encoder)
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
        found = {metric: selection.find(name, metric, fraction=fraction) for metric in metrics}
        metrics = [metric for metric in metrics if 0 <= _value(found[metric], -1) <= 1]
        title_panel(axes, f"{protocol_title(name, selection.about)}, {of_the_labels(fraction)}", width=46)
        _bars(axes, [found[metric] for metric in metrics], selection.encoder)
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


def draw_reliability(curve: ReliabilityCurve, encoder: str) -> Figure:
    """Observed against predicted."""
    figure, (axes,) = new_panels(1, 3, 3.7)
    title = ", ".join(part for part in ("all classes", fraction_name(curve.fraction)) if part)
    title_panel(axes, title, "Predicted probability", "Observed share")
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=DASHED, zorder=1)
    axes.plot(curve.predicted, curve.observed, color=BLUE, linewidth=1.4, alpha=0.7)
    count = np.array(curve.count, dtype=float)
    sizes = 14 + 130 * count / max(count.max(initial=1), 1)
    axes.scatter(
        curve.predicted, curve.observed, s=sizes, color=BLUE, marker="o", label=plain(encoder),
        alpha=0.85, linewidths=0.8, edgecolors="white", zorder=3,
    )  # fmt: skip
    axes.set_xlim(-0.04, 1.04)
    axes.set_ylim(-0.04, 1.04)
    axes.set_aspect("equal")
    shared_legend(figure, [axes])
    return figure


def draw_classes(selection: Selection, protocol: str) -> Figure:
    """The primary metric of each class at the largest fraction, with intervals; the best class above."""
    metric, fraction = selection.primary(protocol), selection.fractions(protocol)[-1]

    def found(label: str) -> ResultRow | None:
        return selection.find(protocol, metric, label, fraction=fraction)

    lines = [(label, found(label)) for label in selection.labels(protocol, metric)]
    lines.sort(key=lambda line: _value(line[1], -np.inf), reverse=True)
    return _forest([*lines, ("mean over classes", found(""))], metric)


def draw_subgroups(selection: Selection, protocol: str) -> Figure:
    """A forest plot: everyone first, then the subgroups with their numbers of patients."""
    metric, fraction = selection.primary(protocol), selection.fractions(protocol)[-1]
    lines = []
    for group in ["", *selection.groups_with_figures(protocol)]:
        row = selection.find(protocol, metric, group=group, fraction=fraction)
        lines.append((f"{group or 'everyone'}  ({row.patients if row else 0:,} patients)", row))
    figure = _forest(lines, metric)
    if _defined(everyone := lines[0][1]):
        figure.axes[0].axvline(_value(everyone, 0), color=BLUE, linewidth=1, alpha=0.45, zorder=1)
    return figure


def _forest(lines: Sequence[tuple[str, ResultRow | None]], metric: str) -> Figure:
    """Lines of points with whiskers from top to bottom, each with a name and a row."""
    figure = new_figure(WIDTH, 1.0 + 0.37 * len(lines))
    axes = figure.add_subplot()
    style_plot(axes, "", metric_name(metric))
    for place, (_, row) in enumerate(lines):
        if _defined(row):
            _whisker(axes, row, place, horizontal=True)
        else:  # a word, so that a gap is no riddle
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
    return figure


def _whisker(axes: Axes, row: ResultRow, place: float, horizontal: bool, name: str = "") -> None:
    """A point with its interval; `name` for the legend, empty for none."""
    if is_number(row.low) and is_number(row.high):
        (axes.hlines if horizontal else axes.vlines)(place, row.low, row.high, color=BLUE, linewidth=1.8)
    point = (row.value, place) if horizontal else (place, row.value)
    label = plain(name) if name else None
    axes.plot(*point, "o", color=BLUE, markersize=6.5, markeredgecolor="white", linestyle="", label=label, zorder=3)


def _whiskers(axes: Axes, places: Sequence[float], rows: Rows, name: str) -> None:
    """Points with whiskers joined by a line; undefined ones leave a gap."""
    axes.plot(places, [_value(row, np.nan) for row in rows], "-", color=BLUE, linewidth=1.8, zorder=2)
    for place, row in zip(places, rows, strict=True):
        if _defined(row):
            _whisker(axes, row, place, horizontal=False, name=name)
            name = ""


def _bars(axes: Axes, rows: Rows, name: str) -> None:
    values = [_value(row, 0.0) for row in rows]
    axes.bar(range(len(rows)), values, 0.46, color=BLUE, alpha=0.85, label=plain(name))
    for place, row in enumerate(rows):
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


def _defined(row: ResultRow | None) -> TypeGuard[ResultRow]:
    return row is not None and is_number(row.value)


def _value(row: ResultRow | None, other: float) -> float:
    return row.value if row is not None and is_number(row.value) else other
