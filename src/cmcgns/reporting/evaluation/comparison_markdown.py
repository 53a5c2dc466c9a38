"""A comparison as Markdown that GitHub renders."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cmcgns.reporting.evaluation.markdown import code, escape, fold, grid, warning
from cmcgns.reporting.evaluation.notices import LeakNotice
from cmcgns.reporting.evaluation.verdicts import Verdict

if TYPE_CHECKING:
    from cmcgns.reporting.evaluation.verdicts import ProtocolTables


def render(
    picture: str,
    title: str,
    first: str,
    second: str,
    leaks: LeakNotice,
    summary: Sequence[str],
    primary: Sequence[Verdict],
    statements: Sequence[str],
    tables: Sequence[ProtocolTables],
    only_in_one: Sequence[str],
) -> str:
    """The whole report; `picture` is a path, or empty."""
    parts = [f"# {escape(title)}", f"A is {escape(first)}, B is {escape(second)}.", *warning(leaks)]
    parts += ["## Verdict", _bullets(summary)] if summary else []
    parts += [_grid(primary, ("Protocol",), first, second)] if primary else []
    parts += [f"![Paired differences]({picture})"] if picture else []
    parts += ["## How to read the differences", _bullets(statements)]
    for table in tables:
        parts += [f"## {code(table.name)}", escape(table.measured)]
        parts += [_grid(table.overall, (), first, second)] if table.overall else []
        parts += [_bullets(table.notes)] if table.notes else []
        parts += fold("By class", [_grid(table.classes, ("Class",), first, second)]) if table.classes else []
    parts += ["## Not compared", _bullets(only_in_one)] if only_in_one else []
    return "\n\n".join(parts) + "\n"


def _grid(lines: Sequence[Verdict], before: tuple[str, ...], first: str, second: str) -> str:
    heads = [*before, "Metric", "Labels", f"A: {first}", f"B: {second}", "A − B", "95 % interval", "Verdict"]
    return grid(heads, (_cells(line, before) for line in lines))


def _cells(line: Verdict, before: tuple[str, ...]) -> list[str]:
    named = {"Protocol": code(line.protocol), "Class": escape(line.label)}
    difference = f"**{line.difference}**" if line.is_clear else line.difference
    texts = [named[name] for name in before] + [escape(text) for text in (line.metric, line.fraction, line.a, line.b)]
    return [*texts, difference, line.interval, line.verdict]


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {escape(line)}" for line in lines)
