"""Results as rows of a table, the few figures that a run's page shows, and a run's settings as lines of text."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cmcgns.settings.config import Recipe


@dataclass(frozen=True)
class Measure:
    """A row of the table of results.

    Attributes:
        key: in `results.json`.
        task: of the protocol.
        metric: of the protocol.
        name: for people.
        short: for a narrow place.
        chance: what guessing gives; None where it has no fixed value.
    """

    key: str
    task: str
    metric: str
    name: str
    short: str
    chance: float | None


MEASURES = (
    Measure(
        "linear_auroc", "linear", "auroc", "linear probe, 10 % of the labels, mean AUROC", "linear probe\nAUROC", 0.5
    ),
    Measure("zero_shot_auroc", "zero_shot", "auroc", "zero-shot, mean AUROC", "zero-shot\nAUROC", 0.5),
    Measure(
        "report_to_image_r10",
        "retrieval",
        "report_to_image_r@10",
        "report → image, R@10",
        "report → image\nR@10",
        None,
    ),
    Measure(
        "grounding_cnr", "grounding", "cnr_similarity", "phrase grounding, contrast-to-noise", "grounding\nCNR", 0.0
    ),
    Measure(
        "grounding_pointing",
        "grounding",
        "pointing_similarity",
        "phrase grounding, pointing game",
        "pointing\ngame",
        None,
    ),
    Measure("knn_auroc", "knn", "auroc", "nearest neighbours, 10 %, mean AUROC", "k-NN\nAUROC", 0.5),
    Measure("detection_map", "detection", "map", "detection, 10 %, mAP", "detection\nmAP", None),
    Measure(
        "segmentation_dice",
        "segmentation",
        "dice_positive",
        "segmentation of boxes, 10 %, Dice",
        "segmentation\nDice",
        None,
    ),
)


@dataclass(frozen=True)
class Row:
    """One measure, as text.

    Attributes:
        name: of the measure.
        pretrained: value and interval.
        random: the same for the randomly initialised encoder.
        difference: paired difference with its interval.
        chance: what guessing gives.
        clear: whether the interval of the difference leaves out 0.
    """

    name: str
    pretrained: str
    random: str
    difference: str
    chance: str
    clear: bool


def headline(results: Mapping[str, Any]) -> list[Row]:
    """Pretrained against random; empty without labels."""
    first, second, paired = (results.get(name) or {} for name in ("pretrained", "random", "difference"))
    rows = []
    for measure in MEASURES:
        key = measure.key
        if key not in first:
            continue
        guess = (results.get("chance") or {}).get(key)
        rows.append(
            Row(
                measure.name[:1].upper() + measure.name[1:],
                interval(first[key]),
                interval(second.get(key)),
                interval(paired.get(key), signed=True),
                "–" if guess is None else f"{guess:.3f}",
                leaves_out_zero(paired.get(key)),
            )
        )
    return rows


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


def interval(values: Mapping[str, float | None] | None, digits: int = 3, signed: bool = False) -> str:
    """`0.912 (0.897 to 0.926)`, the figure alone where it has no interval, or a dash."""
    if not values or values["value"] is None:
        return "–"
    sign = "+" if signed else ""
    ends = [f"{end:{sign}.{digits}f}" for end in (values["low"], values["high"]) if end is not None]
    value = f"{values['value']:{sign}.{digits}f}"
    return (f"{value} ({' to '.join(ends)})" if len(ends) == 2 else value).replace("-", "−")


def number(value: float | None) -> str:
    """Two digits, or a dash for what is missing or undefined."""
    return "–" if value is None or value != value else f"{value:.2f}"


def leaves_out_zero(values: Mapping[str, float | None] | None) -> bool:
    """Whether an interval lies on one side of 0."""
    low, high = (values["low"], values["high"]) if values is not None else (None, None)
    return low is not None and high is not None and (low > 0 or high < 0)


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
