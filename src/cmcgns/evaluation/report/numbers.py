"""Figures as text."""

from __future__ import annotations

import math
from typing import TypeGuard

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


def span(low: float | None, high: float | None) -> str:
    """`0.851 to 0.893`; empty if an end is missing."""
    return f"{number(low)} to {number(high)}" if is_number(low) and is_number(high) else ""


def with_span(value: str, interval: str) -> str:
    """`0.872 (0.851 to 0.893)`."""
    return f"{value} ({interval})" if interval else value
