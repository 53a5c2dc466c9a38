"""The report of a paired comparison: the only place where a difference may be set off."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from cmcgns.common.safe_text import write_rows
from cmcgns.evaluation.compare import Comparison, ComparisonRow
from cmcgns.reporting.evaluation.names import (
    DASH,
    TASKS,
    extent,
    fraction_name,
    interval_text,
    is_chance,
    is_number,
    lower_is_better,
    metric_name,
    paper_order,
    signed,
    span,
)
from cmcgns.reporting.evaluation.notices import FEW_PATIENTS, LeakNotice, few_patients
from cmcgns.reporting.evaluation.pages import write_pages
from cmcgns.reporting.style import FAINT, WIDTH, draw_difference, name_lines, new_figure, style_plot

A_BETTER, B_BETTER, NOT_CLEAR, UNDEFINED = "A better", "B better", "not clear", "undefined"


def write_comparison(folder: Path, comparison: Comparison) -> Path:
    """Write `comparison.md`, `comparison.csv`, `comparison.html` and `pictures/`.

    Args:
        folder: to write into.
        comparison: paired differences, first (A) minus second (B). Chance levels, which are no property of an
            encoder, are in the csv file alone.

    Returns:
        Path of `comparison.html`, one file that needs nothing else.
    """
    rows = sorted((row for row in comparison.rows if not is_chance(row.metric)), key=lambda row: _order(row.protocol))
    primary = [row for row in rows if row.primary and not row.label]
    content: dict[str, Any] = {
        "title": f"{comparison.first} against {comparison.second}",
        "first": comparison.first,
        "second": comparison.second,
        "leaks": LeakNotice(_leaks(rows), consequence="These figures may be too high, and differences with them."),
        "summary": _summary(rows, primary),
        "primary": [_line(row) for row in primary],
        "statements": _statements(rows),
        "tables": _tables(rows),
        "only_in_one": list(comparison.only_in_one),
    }
    write_rows(folder / "comparison.csv", ComparisonRow, comparison.rows)
    return write_pages(folder, "comparison", content, _forest_plot(primary), ("comparison",))


def verdict_of(row: ComparisonRow) -> str:
    """Whom the interval of A - B favours; a difference in a figure where lower is better favours the lower."""
    if not is_number(row.difference):
        return UNDEFINED
    if not row.clear:
        return NOT_CLEAR
    return A_BETTER if (row.difference > 0) != lower_is_better(row.metric) else B_BETTER


def _line(row: ComparisonRow) -> dict[str, Any]:
    """A line of a table: a row as text; the metric says if lower is better."""
    return {
        "protocol": row.protocol,
        "metric": metric_name(row.metric) + (" (lower is better)" if lower_is_better(row.metric) else ""),
        "label": row.label,
        "fraction": fraction_name(row.fraction) or "none",
        "a": interval_text(row.a),
        "b": interval_text(row.b),
        "difference": interval_text(row.difference, show=signed),
        "interval": span(row.low, row.high, signed) or DASH,
        "verdict": verdict_of(row),
        "is_clear": row.clear,
    }


def _tally(rows: Sequence[ComparisonRow]) -> str:
    """`A better in 5 of 8, B better in 1, not clear in 2`; the last two kinds only where there are some."""
    counts = Counter(map(verdict_of, rows))
    rest = [B_BETTER, *(kind for kind in (NOT_CLEAR, UNDEFINED) if counts[kind])]
    return ", ".join(
        [f"{A_BETTER} in {counts[A_BETTER]} of {len(rows)}", *(f"{kind} in {counts[kind]}" for kind in rest)]
    )


def _leaks(rows: Iterable[ComparisonRow]) -> list[str]:
    """What was seen before, of each protocol: the end of the rows' notes."""
    found = ((row.protocol, *row.note.partition("LEAKAGE ")) for row in rows)
    return list(dict.fromkeys(f"`{protocol}`: {text}" for protocol, _, sign, text in found if sign))


def _summary(rows: Sequence[ComparisonRow], primary: Sequence[ComparisonRow]) -> list[str]:
    """The verdict in two sentences."""
    if not rows:
        return []
    clear = sum(row.clear for row in rows)
    found = [f"Primary figures: {_tally(primary)}."] if primary else []
    found.append(
        f"All figures, classes included: {_tally(rows)}. {clear} of {len(rows)} differences are clear; were the two "
        f"alike, about {0.05 * len(rows):.0f} of {len(rows)} would be by chance."
    )
    return found


def _statements(rows: Sequence[ComparisonRow]) -> list[str]:
    few = sorted({f"{row.protocol} ({row.patients})" for row in rows if row.patients < FEW_PATIENTS})
    return [
        "A difference is A minus B, taken on the same resamples of the same test patients, with its 95 % interval. "
        "Patients that are hard for both cancel.",
        "One is called better, and the difference is set off, where the interval leaves out 0. It says nothing about "
        "how the two would differ had they been pretrained again with another seed.",
        "Decide beforehand which figure counts: among many, some are clear by chance.",
        *few_patients(few),
    ]


def _tables(rows: Iterable[ComparisonRow]) -> list[dict[str, Any]]:
    """Of each protocol: its name, on what it was measured, figures over all classes, of single ones, and notes."""
    grouped: dict[str, list[ComparisonRow]] = {}
    for row in rows:
        grouped.setdefault(row.protocol, []).append(row)
    return [
        {
            "name": name,
            "measured": _measured([row for row in of if not row.label] or of),
            "overall": [_line(row) for row in of if not row.label],
            "classes": [_line(row) for row in of if row.label],
            "notes": list(dict.fromkeys(row.note for row in of if row.note)),
        }
        for name, of in grouped.items()
    ]


def _measured(rows: Sequence[ComparisonRow]) -> str:
    counts = f"{extent(row.n for row in rows)} test rows of {extent(row.patients for row in rows)} patients"
    learned = extent(row.seeds for row in rows if row.fraction is not None)
    seeds = f", {learned} {'seed' if learned == '1' else 'seeds'} that both have" if learned else ""
    return f"Measured on {counts}{seeds}, {extent(row.resamples for row in rows)} resamples."


def _forest_plot(primary: Sequence[ComparisonRow]) -> dict[str, Figure]:
    """Paired differences with their intervals; filled where the interval leaves out 0."""
    shown = [
        (row, row.difference, row.low, row.high)
        for row in primary
        if is_number(row.difference) and is_number(row.low) and is_number(row.high)
    ]
    if not shown:
        return {}
    figure = new_figure(WIDTH, 1.2 + 0.34 * len(shown))
    axes = figure.add_subplot()
    style_plot(axes, "", "Difference: A minus B")
    axes.axvline(0, color=FAINT, linewidth=1.2)
    for place, (row, value, low, high) in enumerate(shown):
        draw_difference(axes, place, value, low, high, row.clear)
    about = ((row.protocol, metric_name(row.metric), fraction_name(row.fraction)) for row, *_ in shown)
    name_lines(figure, axes, [", ".join(part for part in parts if part) for parts in about])
    return {"comparison-primary": figure}


def _order(name: str) -> tuple[int, int, int, str]:
    """By the task that the protocol's own name ends in."""
    base = name.partition("/")[0].replace("-", "_")
    return paper_order(name, max((task for task in TASKS if base.endswith(task)), key=len, default=""))
