"""Curves of every figure in metrics.jsonl."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cmcgns.reporting.style import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    TEXT,
    VERMILION,
    add_legend,
    new_figure,
    style_plot,
)

Records = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Panel:
    """One plot: its title, what its axis counts, and key, name and colour of each curve."""

    title: str
    ylabel: str
    curves: tuple[tuple[str, str, str], ...]


PANELS = (
    Panel("Total loss", "weighted sum", (("loss", "", INK),)),
    Panel("Global alignment", "L_global (nats)", (("global", "", BLUE),)),
    Panel("Local image alignment", "L_image", (("image", "", GREEN),)),
    Panel(
        "Local report alignment",
        "L_report (nats)",
        (("report", "own image", VERMILION), ("report_swapped", "swapped image", PURPLE)),
    ),
    Panel("Margin part of L_report", "margin", (("margin", "", ORANGE),)),
    Panel("Masked reconstruction", "L_re (mean |error|)", (("reconstruction", "", GREEN),)),
    Panel(
        "Retrieval, validation",
        "recall at 10",
        (("report_to_image_r10", "report → image", BLUE), ("image_to_report_r10", "image → report", ORANGE)),
    ),
    Panel("Learned temperatures", "temperature", (("temperature", "L_global", BLUE), ("tau", "L_report", VERMILION))),
    Panel("Learning rate", "learning rate", (("learning_rate", "", FAINT),)),
)


def has_curves(records: Records) -> bool:
    """Whether anything was logged."""
    return any(record["kind"] in ("train", "validation") for record in records)


def bank_start(records: Records) -> int | None:
    """Step at which the cluster bank started."""
    steps = (record["step"] for record in records if record.get("message") == "the cluster bank started")
    return next(steps, None)


def stage_change(records: Records) -> int | None:
    """Last step of Stage I, where both stages were run."""
    stages = [(record["stage"], record["step"]) for record in records if record["kind"] == "validation"]
    before = [step for stage, step in stages if stage == "alignment"]
    return before[-1] if before and any(stage == "reconstruction" for stage, _ in stages) else None


def draw_curves(records: Records) -> Figure:
    """A panel for every figure that the run has; training faint, validation with markers."""
    present = {key for record in records for key in record}
    panels = [panel for panel in PANELS if any(key in present for key, _, _ in panel.curves)]
    rows = ceil(len(panels) / 3)
    figure = new_figure(13, 3.25 * rows + 0.9)
    top = 1 - 0.95 / (3.25 * rows + 0.9)
    grid = figure.add_gridspec(rows, 3, left=0.065, right=0.985, top=top, bottom=0.19 / rows, hspace=0.46, wspace=0.3)
    for number, panel in enumerate(panels):
        axes = figure.add_subplot(grid[divmod(number, 3)])
        draw_panel(axes, panel, records)
    _explain(figure, records)
    return figure


def draw_panel(axes: Axes, panel: Panel, records: Records) -> None:
    """One panel with the marks of stage change and bank start."""
    style_plot(axes, panel.title, "optimiser step", panel.ylabel)
    logged = {key for record in records for key in record}
    curves = [curve for curve in panel.curves if curve[0] in logged]
    for key, name, colour in curves:
        steps, values = _series(records, "train", key)
        lonely = not _series(records, "validation", key)[0]
        axes.plot(steps, values, color=colour, linewidth=1.8 if lonely else 1.2, alpha=0.9 if lonely else 0.4)
        steps, values = _series(records, "validation", key)
        axes.plot(steps, values, color=colour, linewidth=2.2, marker="o", markersize=4.5, label=name or None)
    mark_events(axes, records)
    if len(curves) > 1:
        add_legend(axes)
    if panel.title == "Learning rate":
        axes.ticklabel_format(axis="y", style="plain", useOffset=False)


def mark_events(axes: Axes, records: Records) -> None:
    """Vertical lines where Stage II began and where the bank started, if that is where the curves are."""
    first, last = axes.get_xlim()
    for step, style in ((stage_change(records), "--"), (bank_start(records), ":")):
        if step is not None and first <= step <= last:
            axes.axvline(step, color=FAINT, linestyle=style, linewidth=1.3, zorder=0.5)


def _series(records: Iterable[dict[str, Any]], kind: str, key: str) -> tuple[list[int], list[float]]:
    """Steps and values, with a gap between the stages: Stage II starts from other weights and has another total."""
    steps: list[int] = []
    values: list[float] = []
    stage = None
    for record in records:
        if record["kind"] != kind or key not in record:
            continue
        if stage not in (None, record["stage"]):
            steps.append(record["step"])
            values.append(float("nan"))
        stage = record["stage"]
        steps.append(record["step"])
        values.append(record[key])
    return steps, values


def _explain(figure: Figure, records: Records) -> None:
    handles = [
        Line2D([], [], color=INK, linewidth=1.2, alpha=0.45, label="training"),
        Line2D([], [], color=INK, linewidth=2.2, marker="o", markersize=4.5, label="validation"),
    ]
    if stage_change(records) is not None:
        handles.append(Line2D([], [], color=FAINT, linestyle="--", label="Stage II begins"))
    if (step := bank_start(records)) is not None:
        handles.append(Line2D([], [], color=FAINT, linestyle=":", label=f"bank starts (step {step})"))
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.058, 0.995), ncols=len(handles), frameon=False,
        fontsize=TEXT, labelcolor=INK, columnspacing=2.2,
    )  # fmt: skip
