"""Tables of figures and of differences in the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from cmcgns.evaluation.compare import Comparison, ComparisonRow
from cmcgns.evaluation.results import ResultRow
from cmcgns.reporting.evaluation.comparison import verdict_of
from cmcgns.reporting.evaluation.names import interval_text, is_chance, lower_is_better

_LEAST = 9  # letters that a column of names keeps
_GAP = 2  # letters between columns
_PIECE = re.compile(r"[^-/@_+]*[-/@_+]?")

Lines = Sequence[Sequence[str]]


def figures_table(rows: Iterable[ResultRow], width: int) -> Table:
    """Figures of an evaluation, a line each; names stay recognisable in a terminal of `width` letters."""
    lines = [
        (
            row.protocol,
            row.metric,
            share_text(row.fraction),
            _with_interval(row.value, row.low, row.high),
            f"{row.n:,}",
        )
        for row in rows
    ]
    title = "95 % intervals: patient-clustered bootstrap; mean over seeds"
    return _table(title, ("protocol", "figure", "%", "value", "rows"), lines, width)


def differences_table(comparison: Comparison, width: int) -> Table:
    """The primary differences of a comparison, and which encoder their intervals favour.

    Args:
        comparison: first (A) minus second (B).
        width: of the terminal, in letters.
    """
    rows = [row for row in comparison.rows if row.primary and not is_chance(row.metric)]
    heads = ("protocol", "figure", "%", "A", "B", "A - B", "verdict")
    lines = [_difference(row, " ") for row in rows]
    first, second, room = _widths(heads, lines, width)
    if first + second > room:
        lines = [_difference(row, "\n") for row in rows]  # leaves more to the names
    table = _table(f"A: {comparison.first}, B: {comparison.second}; paired 95 % intervals", heads, lines, width)
    lower = dict.fromkeys(row.metric for row in rows if lower_is_better(row.metric))
    table.caption = f"lower is better: {', '.join(lower)}" if lower else None
    return table


def in_lines(name: str, width: int) -> str:
    """A name in lines of at most `width` letters, broken after the signs that join its parts.

    A part that is longer loses its middle.
    """
    lines = [""]
    for part in _PIECE.findall(name):
        if len(part) > width:
            part = f"{part[: width // 2]}…{part[len(part) - (width - 1 - width // 2) :]}"
        if len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _table(title: str, heads: Sequence[str], lines: Lines, width: int) -> Table:
    """Columns of names share what the figures leave."""
    first, second, room = _widths(heads, lines, width)
    is_narrow = first + second > room
    if is_narrow:
        first = max(_LEAST, min(first, room - min(second, room // 2)))
        second = max(_LEAST, min(second, room - first))
    table = Table(
        *heads, title=escape(title), box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False,
        padding=(0, _GAP - 1, 0, 0), leading=1 if is_narrow else 0,
    )  # fmt: skip
    for column in table.columns:
        column.overflow = "fold"
    for protocol, figure, *rest in lines:
        table.add_row(escape(in_lines(protocol, first)), escape(in_lines(figure, second)), *rest)
    return table


def _widths(heads: Sequence[str], lines: Lines, width: int) -> tuple[int, int, int]:
    """Letters of the first two columns, which are names, and those that the figures leave to them."""
    columns = ("\n".join(column).split("\n") for column in zip(heads, *lines, strict=True))
    first, second, *figures = (max(map(len, column)) for column in columns)
    return first, second, width - sum(figures) - _GAP * (len(heads) - 1)


def _difference(row: ComparisonRow, between: str) -> tuple[str, ...]:
    difference = _with_interval(row.difference, row.low, row.high, "+", between)
    verdict = verdict_of(row).replace(" ", between)
    a, b = (_with_interval(value) for value in (row.a, row.b))
    return row.protocol, row.metric, share_text(row.fraction), a, b, difference, verdict


def share_text(fraction: float | None) -> str:
    """Per cent without the sign; empty for what learns nothing."""
    return "" if fraction is None else f"{fraction:g}"


def _with_interval(
    value: float | None, low: float | None = None, high: float | None = None, sign: str = "", between: str = " "
) -> str:
    return interval_text(value, low, high, lambda end: f"{end:{sign}.3f}").replace(" (", f"{between}(")
