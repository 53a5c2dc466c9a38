"""What readers call tasks, metrics, fractions and protocols, in which order they expect them, and figures as text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeGuard

from cmcgns.evaluation.protocols import EvaluationProtocol

DASH = "–"


def number(value: float, digits: int = 3) -> str:
    """`0.872`, with a true minus sign; large ones with fewer digits."""
    if abs(value) >= 100:
        digits = min(digits, 1)
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")  # + 0.0: no −0.000


def signed(value: float) -> str:
    """`+0.012`, `−0.012` or `0.000`."""
    rounded = round(value, 3)
    return f"{rounded:+.3f}".replace("-", "−") if rounded else "0.000"


def is_number(value: float | None) -> TypeGuard[float]:
    """Whether there is a finite value."""
    return value is not None and math.isfinite(value)


def span(low: float | None, high: float | None, show: Callable[[float], str] = number) -> str:
    """`0.851 to 0.893`; empty if an end is missing."""
    return f"{show(low)} to {show(high)}" if is_number(low) and is_number(high) else ""


def extent(values: Iterable[int]) -> str:
    """`3`, or `2 to 3`; empty if there are none."""
    found = sorted(set(values))
    return " to ".join(f"{value:,}" for value in dict.fromkeys(found[:1] + found[-1:]))


def with_span(value: str, interval: str) -> str:
    """`0.872 (0.851 to 0.893)`."""
    return f"{value} ({interval})" if interval else value


TASKS = {
    "linear": "Linear classification",
    "knn": "k-nearest neighbours",
    "detection": "Detection",
    "segmentation": "Segmentation",
    "zero_shot": "Zero-shot classification",
    "retrieval": "Retrieval of images and reports",
    "grounding": "Grounding of phrases",
}
DESCRIPTIONS = {
    "linear": "A linear classifier is trained on the frozen encoder's features.",
    "knn": "The nearest training images vote, by cosine similarity of the frozen encoder's features.",
    "detection": "A detection head is trained on the frozen encoder's maps.",
    "segmentation": "A decoder is trained on the frozen encoder's maps.",
    "zero_shot": "Images are compared with sentences; nothing is trained on labels.",
    "retrieval": "An image is to find its report among all others, and a report its image; nothing is trained.",
    "grounding": "A phrase is to light up the place that it speaks of; nothing is trained on boxes.",
}
CALIBRATION = ("ece", "brier")
_LOWER = ("ece", "brier", "median_rank")
CHANCE = "chance"
_DATASETS = ("chexpert", "siim", "rsna", "covidx", "object", "nih")  # the paper's order within each task
_METRICS = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "f1": "F1",
    "macro_f1": "Macro F1",
    "map": "mAP",
    "miou": "Mean IoU",
    "iou": "IoU",
    "dice": "Dice",
    "dice_positive": "Dice, positive images",
    "dice_all": "Dice, empty images included",
    "iou_positive": "IoU, positive images",
    "iou_all": "IoU, empty images included",
    "median_rank": "Median rank",
    "cnr": "Contrast-to-noise ratio",
    "cnr_absolute": "Contrast-to-noise ratio, absolute",
    "pointing": "Pointing game",
    "pointing_game": "Pointing game",
    "ece": "Expected calibration error",
    "brier": "Brier score",
    "sensitivity@1fp": "Sensitivity at 1 false alarm an image",
    "mrr": "Mean reciprocal rank",
}
_PREFIXES = {
    "image_to_report": "Image → report",
    "report_to_image": "Report → image",
    "i2r": "Image → report",
    "r2i": "Report → image",
}
_SUFFIXES = {"attention": "attention map", "similarity": "similarity map", CHANCE: "by chance"}


@dataclass(frozen=True)
class ProtocolName:
    """A protocol's name in tables: `rsna-linear/v1@rsna` in its parts."""

    base: str
    version: str
    dataset: str = ""

    @classmethod
    def parse(cls, name: str) -> ProtocolName:
        """Take a name apart; what is missing is empty."""
        rest, _, dataset = name.partition("@")
        base, _, version = rest.partition("/")
        return cls(base, version, dataset)

    @property
    def is_legacy(self) -> bool:
        """Whether published figures may stand beside it: the legacy protocol as it comes, without overrides."""
        return self.version.startswith("legacy") and "+" not in self.version


def metric_name(metric: str) -> str:
    """`report_to_image_r@10` -> `Report → image, R@10`; a name that is not known stays as it is."""
    for prefix, text in _PREFIXES.items():
        if metric.startswith(prefix + "_"):
            return f"{text}, {metric_name(metric.removeprefix(prefix + '_'))}"
    for suffix, text in _SUFFIXES.items():
        if metric.endswith("_" + suffix):
            return f"{metric_name(metric.removesuffix('_' + suffix))}, {text}"
    if metric.startswith(("r@", "p@")):
        return metric.upper()
    if metric.startswith("ap") and metric[2:].isdigit():
        return f"AP at IoU 0.{metric[2:]}"
    if metric.startswith("recall@"):
        return f"Recall, {metric.removeprefix('recall@')} detections an image"
    return _METRICS.get(metric, metric.replace("_", " "))


def lower_is_better(metric: str) -> bool:
    """Whether a smaller figure is the better one: errors and ranks."""
    return metric.endswith(_LOWER)


def is_chance(metric: str) -> bool:
    """Whether a figure is what guessing gets on these test rows, whoever is judged."""
    return metric.endswith(f"_{CHANCE}")


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
    dataset = ProtocolName.parse(name).dataset
    return f"{protocol.title} ({dataset})" if dataset else protocol.title


def paper_order(name: str, task: str) -> tuple[int, int, int, str]:
    """Sort key of a protocol: by task, v1 before legacy, then the order of the paper's tables."""
    parts = ProtocolName.parse(name)
    tasks = list(TASKS)
    position = tasks.index(task) if task in tasks else len(tasks)
    dataset = next((i for i, start in enumerate(_DATASETS) if parts.base.startswith(start)), len(_DATASETS))
    return position, version_rank(parts.version), dataset, name


def version_rank(version: str) -> int:
    """v1 as it comes first, then others, legacy ones last."""
    return 0 if version == "v1" else 2 if version.startswith("legacy") else 1
