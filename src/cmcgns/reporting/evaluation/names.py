"""What readers call tasks, metrics, fractions and protocols, in which order they expect them, and figures as text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeGuard

from cmcgns.common.packaged import packaged_yaml
from cmcgns.evaluation.protocols import EvaluationProtocol

DASH = "–"


def number(value: float, digits: int = 3) -> str:
    """`0.872`, with a true minus sign; large ones with fewer digits."""
    digits = digits if abs(value) < 100 else 1
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")  # + 0.0: no −0.000


def signed(value: float, digits: int = 3) -> str:
    """`+0.012`, `−0.012` or `0.000`."""
    rounded = round(value, digits) + 0.0
    return f"{rounded:{'+' if rounded else ''}.{digits}f}".replace("-", "−")


def is_number(value: float | None) -> TypeGuard[float]:
    """Whether there is a finite value."""
    return value is not None and math.isfinite(value)


def span(low: float | None, high: float | None, show: Callable[[float], str] = number) -> str:
    """`0.851 to 0.893`; empty if an end is missing."""
    return f"{show(low)} to {show(high)}" if is_number(low) and is_number(high) else ""


def interval_text(
    value: float | None,
    low: float | None = None,
    high: float | None = None,
    show: Callable[[float], str] = number,
    none: str = "",
) -> str:
    """`0.872 (0.851 to 0.893)`; `none` in place of an interval that is not there; a dash for no figure."""
    ends = span(low, high, show) or none
    return (f"{show(value)} ({ends})" if ends else show(value)) if is_number(value) else DASH


def extent(values: Iterable[int]) -> str:
    """`3`, or `2 to 3`; empty if there are none."""
    found = sorted(set(values))
    return " to ".join(f"{value:,}" for value in dict.fromkeys(found[:1] + found[-1:]))


_WORDS: dict[str, Any] = packaged_yaml("cmcgns.reporting.evaluation", "names.yaml")
TASKS: dict[str, str] = _WORDS["tasks"]
DESCRIPTIONS: dict[str, str] = _WORDS["descriptions"]
CALIBRATION = ("ece", "brier")


def version_of(name: str) -> str:
    """`v1` of `rsna-linear/v1@rsna`; empty where the name has none."""
    return name.partition("@")[0].partition("/")[2]


def is_legacy(name: str) -> bool:
    """Whether published figures may stand beside it: the legacy protocol as it comes, without overrides."""
    return version_of(name).startswith("legacy") and "+" not in version_of(name)


def metric_name(metric: str) -> str:
    """`report_to_image_r@10` -> `Report → image, R@10`; a name that is not known stays as it is."""
    for prefix, text in _WORDS["prefixes"].items():
        if metric.startswith(prefix + "_"):
            return f"{text}, {metric_name(metric.removeprefix(prefix + '_'))}"
    for suffix, text in _WORDS["suffixes"].items():
        if metric.endswith("_" + suffix):
            return f"{metric_name(metric.removesuffix('_' + suffix))}, {text}"
    if metric.startswith(("r@", "p@")):
        return metric.upper()
    if metric.startswith("ap") and metric[2:].isdigit():
        return f"AP at IoU 0.{metric[2:]}"
    if metric.startswith("recall@"):
        return f"Recall, {metric.removeprefix('recall@')} detections an image"
    known: str = _WORDS["metrics"].get(metric, metric.replace("_", " "))
    return known


def lower_is_better(metric: str) -> bool:
    """Whether a smaller figure is the better one: errors."""
    return metric.endswith(CALIBRATION)


def is_chance(metric: str) -> bool:
    """Whether a figure is what guessing gets on these test rows, whoever is judged."""
    return metric.endswith("_chance")


def fraction_name(fraction: float | None) -> str:
    """`10 %`, or empty for what learns nothing."""
    return "" if fraction is None else f"{fraction:g} %"


def of_the_labels(fraction: float | None) -> str:
    """`10 % of the labels`, or empty for what learns nothing."""
    return "" if fraction is None else f"{fraction_name(fraction)} of the labels"


def protocol_title(name: str, protocols: Mapping[str, EvaluationProtocol]) -> str:
    """The protocol's own title and, where the protocol names no dataset, the dataset; its name if it is not known."""
    protocol = protocols.get(name)
    if protocol is None:
        return name
    dataset = name.partition("@")[2]
    return f"{protocol.title} ({dataset})" if dataset else protocol.title


def paper_order(name: str, task: str) -> tuple[int, int, int, str]:
    """Sort key of a protocol: by task, v1 before legacy, then the order of the paper's tables."""
    position = [*TASKS, task].index(task)
    datasets = _WORDS["datasets"]
    dataset = next((place for place, start in enumerate(datasets) if name.startswith(start)), len(datasets))
    return position, version_rank(version_of(name)), dataset, name


def version_rank(version: str) -> int:
    """v1 as it comes first, then others, legacy ones last."""
    return 0 if version == "v1" else 2 if version.startswith("legacy") else 1
