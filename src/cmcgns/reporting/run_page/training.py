"""Training in pictures: curves of every logged figure, and the cluster bank, how full and of which meaning."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cmcgns.common.packaged import packaged_yaml
from cmcgns.objectives.cluster_bank import ClusterBank
from cmcgns.reporting import style
from cmcgns.reporting.clusters.bank import Records, bank_facts, bank_start, lacks_bank
from cmcgns.reporting.clusters.members import describe_clusters, fullest
from cmcgns.reporting.run_page.studies import EncodedStudies
from cmcgns.reporting.style import (
    BLUE,
    FAINT,
    INK,
    ORANGE,
    SMALL,
    TEXT,
    VERMILION,
    add_legend,
    new_figure,
    style_plot,
)

_CLUSTERS = 8  # whose sentences are shown


@dataclass(frozen=True)
class Panel:
    """One plot: its title, what its axis counts, and key, name and colour (as the style names it) of each curve."""

    title: str
    ylabel: str
    curves: list[tuple[str, str, str]]


PANELS = tuple(Panel(**panel) for panel in packaged_yaml("cmcgns.reporting.run_page", "panels.yaml"))


_TERMS = ("global", "image", "report", "reconstruction", "margin")  # of the method; a rival's may be called so too


def stage_change(records: Records) -> int | None:
    """Last step of Stage I, where both stages were run."""
    stages = [(record["stage"], record["step"]) for record in records if record["kind"] == "validation"]
    before = [step for stage, step in stages if stage == "alignment"]
    return before[-1] if before and any(stage == "reconstruction" for stage, _ in stages) else None


def panels_of(records: Records, published: bool) -> list[Panel]:
    """Panels of what was logged.

    Args:
        records: of the run.
        published: whether the objective is the method's own, whose terms have titles; those of another one stand
            under their own names.
    """
    logged = {key for record in records for key in record}
    panels = [panel for panel in PANELS if any(key in logged for key, _, _ in panel.curves)]
    if published:
        return panels
    panels = [panel for panel in panels if panel.curves[0][0] not in _TERMS]
    known = {key for panel in PANELS for key, _, _ in panel.curves if key not in _TERMS} | {"kind", "stage", "step"}
    by_kind = [
        dict.fromkeys(key for record in records if record["kind"] == kind for key in record)
        for kind in ("train", "validation")
    ]
    own = [key for key in by_kind[1] if key in by_kind[0] and key not in known and key != "epoch"]
    return [*panels[:1], *(Panel(key, key, [(key, "", "BLUE")]) for key in own), *panels[1:]]


def show_curves(records: Records, published: bool) -> dict[str, Any]:
    """The section of curves, or why there is none."""
    if not any(record["kind"] in ("train", "validation") for record in records):
        return {"absent": "Nothing was logged: the run was shorter than training.log_every, or has no metrics.jsonl."}
    notes = {"swapped": "report_swapped", "judged": "false_negative_contradict"}
    told = {name: any(key in record for record in records) for name, key in notes.items()}
    return {"picture": draw_curves(records, panels_of(records, published))} | told


def draw_curves(records: Records, panels: Sequence[Panel]) -> Figure:
    """A plot for every panel; training faint, validation with markers."""
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
    for key, name, colour_name in curves:
        colour = getattr(style, colour_name)
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
    for step, line in ((stage_change(records), "--"), (bank_start(records), ":")):
        if step is not None and first <= step <= last:
            axes.axvline(step, color=FAINT, linestyle=line, linewidth=1.3, zorder=0.5)


def _series(records: Iterable[dict[str, Any]], kind: str, key: str) -> tuple[list[int], list[float]]:
    """Steps and values, with a gap between the stages: Stage II starts from other weights and has another total."""
    points: list[tuple[int, float]] = []
    stage = None
    for record in records:
        if record["kind"] == kind and key in record:
            if stage not in (None, record["stage"]):
                points.append((record["step"], float("nan")))
            stage = record["stage"]
            points.append((record["step"], record[key]))
    return [step for step, _ in points], [value for _, value in points]


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


def show_bank(studies: EncodedStudies, records: Records) -> dict[str, Any]:
    """The section of the cluster bank, or why there is none."""
    method, found = studies.model.method, studies.clustered
    if method is None or found is None:
        return {"absent": lacks_bank(studies.model)}
    return {
        "picture": draw_bank(method.bank, records),
        "facts": bank_facts(method.bank, found),
        "start": bank_start(records),
        "clusters": fullest(describe_clusters(method.bank, found))[:_CLUSTERS],
    }


def draw_bank(bank: ClusterBank, records: Records) -> Figure:
    """Sorted cluster sizes beside the course of the dead share and of the largest cluster."""
    figure = new_figure(13, 4.1)
    sizes, course = figure.subplots(1, 2, width_ratios=(1.5, 1))
    figure.subplots_adjust(left=0.06, right=0.985, top=0.88, bottom=0.17, wspace=0.2)
    order = bank.shares.argsort(descending=True)
    usage, equal = 100 * bank.shares[order].numpy(), 100 / bank.clusters
    colours = [FAINT if dead else BLUE for dead in bank.dead[order]]
    style_plot(sizes, "Cluster sizes", "cluster, fullest first", "share of sentences (%)")
    sizes.bar(np.arange(1, len(usage) + 1), usage, color=colours, width=0.82)
    sizes.axhline(equal, color=VERMILION, linewidth=1.4, linestyle="--")
    sizes.text(len(usage) + 0.5, equal, f"equal share {equal:.1f} % ", color=VERMILION, fontsize=SMALL, ha="right",
               va="bottom")  # fmt: skip
    sizes.set_xlim(0.3, len(usage) + 0.7)
    style_plot(course, "Over training", "optimiser step", "%")
    for key, name, colour in (("bank_dead", "dead centroids", FAINT), ("bank_largest", "largest cluster", ORANGE)):
        points = [
            (record["step"], 100 * record[key])
            for record in records
            if record["kind"] == "validation" and record.get("bank_started") and key in record
        ]
        steps, shares = [step for step, _ in points], [share for _, share in points]
        course.plot(steps, shares, color=colour, linewidth=2.2, marker="o", markersize=4.5, label=name)
    mark_events(course, records)
    course.set_ylim(bottom=-2)
    add_legend(course)
    return figure
