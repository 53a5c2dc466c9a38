"""What a paired interval says: which encoder is better, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cmcgns.evaluation.compare import ComparisonRow
from cmcgns.reporting.evaluation.names import (
    DASH,
    fraction_name,
    is_number,
    lower_is_better,
    metric_name,
    number,
    signed,
)

A_BETTER, B_BETTER, NOT_CLEAR, UNDEFINED = "A better", "B better", "not clear", "undefined"


@dataclass(frozen=True)
class Verdict:
    """A line of a table: a row as text."""

    protocol: str
    metric: str
    label: str
    fraction: str
    a: str
    b: str
    difference: str
    interval: str
    verdict: str
    is_clear: bool


def verdict_of(row: ComparisonRow) -> str:
    """Whom the interval of A - B favours; a difference in a figure where lower is better favours the lower."""
    if row.difference is None or not is_number(row.difference):
        return UNDEFINED
    if not row.clear:
        return NOT_CLEAR
    return A_BETTER if (row.difference > 0) != lower_is_better(row.metric) else B_BETTER


def describe(row: ComparisonRow) -> Verdict:
    """A row as text; the metric says if lower is better."""
    direction = " (lower is better)" if lower_is_better(row.metric) else ""
    found = row.difference is not None and is_number(row.difference)
    return Verdict(
        protocol=row.protocol,
        metric=metric_name(row.metric) + direction,
        label=row.label,
        fraction=fraction_name(row.fraction) or "none",
        a=_value(row.a),
        b=_value(row.b),
        difference=signed(row.difference) if row.difference is not None and found else DASH,
        interval=_span(row.low, row.high),
        verdict=verdict_of(row),
        is_clear=row.clear,
    )


def tally(rows: Sequence[ComparisonRow]) -> str:
    """`A better in 5 of 8, B better in 1, not clear in 2`; the last two kinds only where there are some."""
    counts = Counter(map(verdict_of, rows))
    rest = [B_BETTER, *(kind for kind in (NOT_CLEAR, UNDEFINED) if counts[kind])]
    parts = [f"{A_BETTER} in {counts[A_BETTER]} of {len(rows)}", *(f"{kind} in {counts[kind]}" for kind in rest)]
    return ", ".join(parts)


def leaks_of(rows: Iterable[ComparisonRow]) -> list[str]:
    """What was seen before, of each protocol: the end of the rows' notes."""
    found: dict[str, None] = {}
    for row in rows:
        _, sign, text = row.note.partition("LEAKAGE ")
        if sign:
            found[f"`{row.protocol}`: {text}"] = None
    return list(found)


def _value(value: float | None) -> str:
    return number(value) if value is not None and is_number(value) else DASH


def _span(low: float | None, high: float | None) -> str:
    if low is None or high is None or not (is_number(low) and is_number(high)):
        return DASH
    return f"{signed(low)} to {signed(high)}"


@dataclass(frozen=True)
class ProtocolTables:
    """Everything of one protocol.

    Attributes:
        name: of the protocol.
        measured: on how many rows and patients.
        overall: figures over all classes.
        classes: figures of single classes.
        notes: why there is no interval, and the like.
    """

    name: str
    measured: str
    overall: list[Verdict]
    classes: list[Verdict]
    notes: list[str]
