"""Results of a judged run: rows of a table, bars, figures as text, and the run's settings in one line."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from matplotlib.axes import Axes

from cmcgns.common.packaged import packaged_yaml
from cmcgns.metrics.interval_table import leaves_out_zero
from cmcgns.reporting.evaluation import names
from cmcgns.reporting.style import BLUE, INK, SMALL, style_plot
from cmcgns.settings.config import Recipe

Ends = Mapping[str, float | None]  # value, low and high
_NOTHING: Ends = {"value": None, "low": None, "high": None}


@dataclass(frozen=True)
class ResultLine:
    """A row of the table of results; `short` is its name in the bars, where it has one."""

    key: str
    task: str
    metric: str
    name: str
    short: str = ""


MEASURES = tuple(ResultLine(**row) for row in packaged_yaml("cmcgns.reporting.run_page", "measures.yaml"))
# Shares between 0 and 1; a contrast-to-noise ratio has no place on their axis.
_BARS = tuple(measure for measure in MEASURES if measure.short)


def headline(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row of text for each measure: pretrained against random; empty without results.

    `decided` says whether the interval of the paired difference leaves out 0.
    """
    first, second, paired, chance = (
        results.get(name) or {} for name in ("pretrained", "random", "difference", "chance")
    )
    return [
        {
            "name": measure.name[:1].upper() + measure.name[1:],
            "pretrained": interval(first[key]),
            "random": interval(second.get(key)),
            "difference": interval(paired.get(key), signed=True),
            "chance": names.interval_text(chance.get(key)),
            "decided": is_clear(paired.get(key)),
        }
        for measure in MEASURES
        if (key := measure.key) in first
    ]


def per_label(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a label: AUROC of both encoders, probe and zero-shot; a dash where it is undefined."""
    first, second = ((results.get(name) or {}).get("per_label", {}) for name in ("pretrained", "random"))
    return [
        {
            "name": label,
            "cells": [
                number(side.get(label, {}).get(kind)) for kind in ("linear", "zero_shot") for side in (first, second)
            ],
        }
        for label in first
    ]


def interval(values: Ends | None, digits: int = 3, signed: bool = False) -> str:
    """`0.912 (0.897 to 0.926)`, the figure alone where it has no interval, or a dash."""
    found, show = values or _NOTHING, partial(names.signed if signed else names.number, digits=digits)
    return names.interval_text(found["value"], found["low"], found["high"], show)


def is_clear(values: Ends | None) -> bool:
    """Whether there is an interval, and it leaves out 0."""
    found = values or _NOTHING
    return leaves_out_zero(found["low"], found["high"])


def number(value: float | None) -> str:
    """Two digits, or a dash for what is missing or undefined."""
    return names.interval_text(value, show=partial(names.number, digits=2))


def duration(seconds: float) -> str:
    """`3 min 20 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.0f} s"


def describe_recipe(recipe: Recipe) -> str:
    """The run in one line."""
    stages = [
        f"{name} {settings.epochs} epoch{'s' if settings.epochs != 1 else ''}"
        for name, settings in (("Stage I", recipe.alignment), ("Stage II", recipe.reconstruction))
        if settings.epochs
    ]
    size, reports = recipe.data.image_size, recipe.report_encoder.name
    text = "a small BERT from scratch" if reports == "random" else reports
    return f"{recipe.image_encoder.name} at {size} × {size} px with {text}; {', '.join(stages)}"


def draw_bars(axes: Axes, results: Mapping[str, Any]) -> None:
    """Both encoders with intervals, and what guessing gives."""
    style_plot(axes, "Test studies, 95 % intervals")
    for group, (kind, colour) in enumerate((("random", "#B4BDC6"), ("pretrained", BLUE))):
        for place, measure in enumerate(_BARS):
            found, x = (results.get(kind) or {}).get(measure.key), place + (group - 0.5) * 0.36
            if found is None or found["value"] is None:
                continue
            low, high = (found["value"] if found[end] is None else found[end] for end in ("low", "high"))
            spread = [[found["value"] - low], [high - found["value"]]]
            axes.bar(x, found["value"], width=0.33, color=colour, label=kind)
            if found["low"] is not None:
                axes.errorbar(x, found["value"], yerr=spread, color=INK, linewidth=1.3, capsize=3)
            axes.text(x, high + 0.025, f"{found['value']:.2f}", ha="center", fontsize=SMALL, color=INK,
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8}, zorder=4)  # fmt: skip
    for place, measure in enumerate(_BARS):
        chance = (results.get("chance") or {}).get(measure.key)
        if chance is None:
            continue
        ends = [place - 0.42, place + 0.42]
        axes.plot(ends, [chance] * 2, color=INK, linestyle=":", linewidth=1.3, label="chance")
    axes.set_xticks(range(len(_BARS)), [measure.short for measure in _BARS], fontsize=SMALL, color=INK)
    axes.set_ylim(0, 1.19)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.grid(visible=False, axis="x")
    handles, names = axes.get_legend_handles_labels()
    once = dict(zip(names, handles, strict=True))
    axes.legend(
        once.values(), once, fontsize=SMALL, frameon=False, ncols=3, loc="upper right", labelcolor=INK,
        handlelength=1.4,
    )  # fmt: skip
