"""What a reliability diagram is drawn from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReliabilityCurve:
    """Predicted probabilities in bins, beside what was observed.

    Attributes:
        protocol: name in tables.
        encoder: its name.
        label: class; empty for all classes together.
        fraction: per cent of the labels; None for what learns nothing.
        predicted: (K,) mean predicted probability of each bin that is not empty.
        observed: (K,) share of positives in it.
        count: (K,) predictions in it.
    """

    protocol: str
    encoder: str
    label: str
    fraction: float | None
    predicted: tuple[float, ...]
    observed: tuple[float, ...]
    count: tuple[int, ...]
