"""Forest plots: a line for each class, subgroup or comparison."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cmcgns.evaluation.results import ResultRow
from cmcgns.reporting.evaluation.names import is_number, metric_name
from cmcgns.reporting.evaluation.plots import COLOURS, LEGEND, WIDTH, plain, shared_legend, whisker
from cmcgns.reporting.evaluation.selection import Selection
from cmcgns.reporting.style import BLUE, FAINT, INK, SMALL, TEXT, new_figure, style_plot


def draw_classes(selection: Selection, protocol: str) -> Figure:
    """The primary metric of each class at the largest fraction, with intervals; the best class above."""
    metric, fraction = selection.primary(protocol), selection.fractions(protocol)[-1]
    encoders = selection.encoders_of(protocol)

    def height(label: str) -> float:
        row = selection.find(protocol, encoders[0], metric, label, fraction=fraction)
        return row.value if row and row.value is not None and is_number(row.value) else -np.inf

    labels = sorted(selection.labels(protocol, metric), key=height, reverse=True)
    names = [*labels, ""]
    rows = [
        [selection.find(protocol, encoder, metric, name, fraction=fraction) for name in names] for encoder in encoders
    ]
    return _forest(selection, encoders, [*labels, "mean over classes"], rows, metric_name(metric), metric)


def draw_subgroups(selection: Selection, protocol: str) -> Figure:
    """A forest plot: everyone first, then the subgroups with their numbers of patients."""
    metric, fraction = selection.primary(protocol), selection.fractions(protocol)[-1]
    encoders = selection.encoders_of(protocol)
    groups = ["", *selection.groups_with_figures(protocol)]
    rows = [
        [selection.find(protocol, encoder, metric, group=group, fraction=fraction) for group in groups]
        for encoder in encoders
    ]
    patients = [max((of[i].patients for of in rows if of[i] is not None), default=0) for i in range(len(groups))]  # type: ignore[union-attr]
    names = [f"{group or 'everyone'}  ({count:,} patients)" for group, count in zip(groups, patients, strict=True)]
    figure = _forest(selection, encoders, names, rows, metric_name(metric), metric)
    for encoder, of in zip(encoders, rows, strict=True):
        if of[0] is not None and of[0].value is not None and is_number(of[0].value):
            colour = COLOURS[selection.encoders.index(encoder) % len(COLOURS)]
            figure.axes[0].axvline(of[0].value, color=colour, linewidth=1, alpha=0.45, zorder=1)
    return figure


def draw_differences(names: Sequence[str], rows: Sequence[tuple[float, float, float, bool]], metric: str) -> Figure:
    """Paired differences with their intervals; filled where the interval leaves out 0.

    Args:
        names: of each line.
        rows: difference, low, high, whether it is clear.
        metric: on the axis.
    """
    figure = new_figure(WIDTH, 1.2 + 0.34 * len(names))
    axes = figure.add_subplot()
    style_plot(axes, "", metric)
    axes.axvline(0, color=FAINT, linewidth=1.2)
    for place, (value, low, high, clear) in enumerate(rows):
        axes.hlines(place, low, high, color=BLUE, linewidth=2)
        axes.plot(value, place, "o", markersize=7, color=BLUE, markerfacecolor=BLUE if clear else "white", zorder=3)
    _name_lines(figure, axes, names)
    return figure


def _forest(
    selection: Selection,
    encoders: Sequence[str],
    names: Sequence[str],
    rows: Sequence[Sequence[ResultRow | None]],
    xlabel: str,
    metric: str,
) -> Figure:
    """Lines of points with whiskers, from top to bottom."""
    step = 0.24 + 0.13 * len(encoders)
    figure = new_figure(WIDTH, 1.0 + step * len(names) + (LEGEND if len(encoders) > 1 else 0))
    axes = figure.add_subplot()
    style_plot(axes, "", xlabel)
    for position, encoder in enumerate(encoders):
        shift = (position - (len(encoders) - 1) / 2) * 0.62 / max(len(encoders), 1)
        for place, row in enumerate(rows[position]):
            if row is None or row.value is None or not is_number(row.value):
                continue
            whisker(axes, row, place + shift, selection.encoders.index(encoder), horizontal=True, name=encoder)
    _mark_undefined(axes, rows)
    if metric == "auroc":
        axes.axvline(0.5, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axes.annotate(
            "chance", (0.5, 1), xycoords=("data", "axes fraction"), xytext=(0, 3), textcoords="offset points",
            ha="center", fontsize=SMALL, color=FAINT,
        )  # fmt: skip
    _name_lines(figure, axes, names)
    shared_legend(figure, [axes], below=1)
    return figure


def _mark_undefined(axes: Axes, rows: Sequence[Sequence[ResultRow | None]]) -> None:
    """A word where no encoder has a figure, so that a gap is no riddle."""
    for place in range(len(rows[0])):
        if not any(of[place] is not None and is_number(of[place].value) for of in rows):  # type: ignore[union-attr]
            axes.text(
                0.01, place, "undefined", transform=axes.get_yaxis_transform(), fontsize=SMALL, color=FAINT,
                va="center", style="italic", zorder=4,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
            )  # fmt: skip


def _name_lines(figure: Figure, axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), labels=[plain(name, 72) for name in names])
    axes.tick_params(axis="y", labelsize=TEXT - 0.5, labelcolor=INK)
    axes.set_ylim(len(names) - 0.4, -0.6)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)
