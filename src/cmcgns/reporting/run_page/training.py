"""Training in pictures: curves of every logged figure, and the cluster bank, how full and of which meaning."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from cmcgns.common.packaged import packaged_yaml
from cmcgns.data.reports.text import normalise_sentence
from cmcgns.objectives.centroids import assign_two
from cmcgns.objectives.cluster_bank import ClusterBank
from cmcgns.objectives.cmcgns import CMCGNS
from cmcgns.pretrained import Pretrained
from cmcgns.reporting import style
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

Records = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Panel:
    """One plot: its title, what its axis counts, and key, name and colour (as the style names it) of each curve."""

    title: str
    ylabel: str
    curves: list[tuple[str, str, str]]


PANELS = tuple(Panel(**panel) for panel in packaged_yaml("cmcgns.reporting.run_page", "panels.yaml"))


def bank_start(records: Records) -> int | None:
    """Step at which the cluster bank started."""
    steps = (record["step"] for record in records if record.get("message") == "the cluster bank started")
    return next(steps, None)


def stage_change(records: Records) -> int | None:
    """Last step of Stage I, where both stages were run."""
    stages = [(record["stage"], record["step"]) for record in records if record["kind"] == "validation"]
    before = [step for stage, step in stages if stage == "alignment"]
    return before[-1] if before and any(stage == "reconstruction" for stage, _ in stages) else None


def show_curves(records: Records) -> dict[str, Any]:
    """The section of curves, or why there is none."""
    if not any(record["kind"] in ("train", "validation") for record in records):
        return {"absent": "Nothing was logged: the run was shorter than training.log_every, or has no metrics.jsonl."}
    notes = {"swapped": "report_swapped", "judged": "false_negative_contradict"}
    told = {name: any(key in record for record in records) for name, key in notes.items()}
    return {"picture": draw_curves(records)} | told


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


def lacks_bank(model: Pretrained) -> str | None:
    """Why a run has no clusters of sentences to show; None if it has."""
    method, settings = model.method, model.recipe.objective.bank
    if method is None or not method.uses_bank:
        return "The run was made without the cluster bank (no local report loss, or in-batch negatives)."
    if method.bank.is_started:
        return None
    conditions = f"mean cosine at most {settings.start_cosine:g}, or step {settings.start_by_step}"
    absent = f"its conditions ({conditions}) were not met, so the loss used in-batch negatives throughout."
    return f"The bank never started: {absent}"


@torch.no_grad()
def show_bank(studies: EncodedStudies, records: Records) -> dict[str, Any]:
    """The section of the cluster bank, or why there is none."""
    method = studies.model.method
    if (reason := lacks_bank(studies.model)) or method is None:
        return {"absent": reason}
    texts = [sentence for report in studies.sentences for sentence in report]
    z1, z2 = _sentence_vectors(studies, method)
    found = assign_two(method.assigned_by(z1, z2), method.bank.centroids, method.bank.active)
    return {
        "picture": draw_bank(method.bank, records),
        "facts": bank_facts(method.bank, found.own),
        "start": bank_start(records),
        "clusters": largest_clusters(method.bank, texts, found.cosines, found.own),
    }


def _sentence_vectors(studies: EncodedStudies, method: CMCGNS) -> tuple[Tensor, Tensor]:
    """Unit z1 and z2 (N, D) of all sentences, study by study."""
    seen = []
    for patches, sentences in zip(studies.patches, studies.sentence_features, strict=True):
        every = torch.ones(1, len(sentences), dtype=torch.bool)
        seen.append(method.attention.image_to_text(patches[None], method.queries(sentences)[None], every)[0][0])
    return F.normalize(torch.cat(studies.sentence_features), dim=-1), F.normalize(torch.cat(seen), dim=-1)


def bank_facts(bank: ClusterBank, own: Tensor) -> dict[str, float]:
    """How many clusters there are, were seeded, are dead and hold a shown sentence (n, of `own`); how even they are.

    `effective` is the exponential of the entropy of the shares: the number of equal clusters that would be as even.
    """
    usage = bank.shares.numpy()
    return {
        "clusters": bank.clusters,
        "seeded": int(bank.active.sum()),
        "dead": int(bank.dead.sum()),
        "held": len(own.unique()),
        "largest": float(usage.max()),
        "effective": float(np.exp(-(usage * np.log(np.maximum(usage, 1e-12))).sum())),
    }


def largest_clusters(
    bank: ClusterBank, texts: Sequence[str], cosines: Tensor, own: Tensor, count: int = 8, sentences: int = 4
) -> list[dict[str, Any]]:
    """The fullest clusters that hold one of n sentences, given their `cosines` (n, K) and `own` clusters (n,).

    Returns:
        Of each its `number` in the bank, its `usage`, the share of the training sentences of about the last hundred
        steps, and the `typical` sentences nearest to the centroid with their cosine, equal texts once.
    """
    clusters = []
    held = set(own.tolist())
    fullest = [number for number in bank.shares.argsort(descending=True).tolist() if number in held]
    for number in fullest[:count]:
        members = (own == number).nonzero()[:, 0]
        nearest = members[cosines[members, number].argsort(descending=True)].tolist()
        typical: dict[str, tuple[str, float]] = {}
        for row in nearest:
            typical.setdefault(normalise_sentence(texts[row]), (texts[row], float(cosines[row, number])))
        usage, shown = float(bank.shares[number]), list(typical.values())[:sentences]
        clusters.append({"number": number, "usage": usage, "typical": shown})
    return clusters


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
