"""Results as Markdown that GitHub renders."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cmcgns.reporting.evaluation.names import DASH
from cmcgns.reporting.evaluation.notices import LeakNotice
from cmcgns.reporting.evaluation.selection import TestSet
from cmcgns.reporting.evaluation.tables import Entry, Fold, Picture, Section, Table

_SIGNS = re.compile(r"([\\`*\[\]|~$<>&#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")
_NAME = re.compile(r"[\w./@+ -]+", re.ASCII)


def escape(text: str) -> str:
    """Text that Markdown takes as it is: one line, no tables, links, emphasis or HTML."""
    return _SIGNS.sub(
        lambda found: {"<": "&lt;", ">": "&gt;", "&": "&amp;"}.get(found[0], "\\" + found[0]), _line(text)
    )


def code(text: str) -> str:
    """A name in a code span; as escaped text if it holds anything unusual."""
    return f"`{text}`" if _NAME.fullmatch(text) else escape(text)


def render(
    title: str,
    lead: str,
    leaks: LeakNotice,
    primary: Table | None,
    statements: Iterable[str],
    sections: Iterable[Section],
    failures: Sequence[tuple[str, str, str]],
    skipped: Sequence[tuple[str, str]],
    protocols: Sequence[Mapping[str, Any]],
    provenance: Mapping[str, str],
) -> str:
    """The whole report."""
    parts = [f"# {escape(title)}", escape(lead), *warning(leaks)]
    parts += [f"## {primary.title}", *table(primary)[1:]] if primary else []
    parts += [_sentence(leaks.line)] if not leaks.findings else []
    parts += listed("How to read the figures", map(_sentence, statements))
    for section in sections:
        parts += [f"## {escape(section.title)}", escape(section.text)]
        for part in section.parts:
            parts.append(f"### {escape(part.title)}" + (f" · {code(part.code)}" if part.code else ""))
            parts += [escape(part.text), *sources(part.sources)]
            for block in part.blocks:
                parts += _fold(block) if isinstance(block, Fold) else _block(block)
    parts += listed("Failed", (f"{code(name)} {code(cell)}: {escape(text)}" for name, cell, text in failures))
    parts += listed("Skipped", (f"{_codes(names)}: {escape(reason)}" for names, reason in skipped))
    parts += listed("Protocols", map(_protocol, protocols))
    parts += listed("Where this comes from", (f"{escape(key)}: {escape(value)}" for key, value in provenance.items()))
    parts.append(
        "All figures, single seeds and classes within subgroups included, are in [results.csv](results.csv)."
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def warning(leaks: LeakNotice) -> list[str]:
    """A box with what was seen before; empty if nothing was found."""
    if not leaks.findings:
        return []
    lines = [leaks.title + ".", *(f"- {_sentence(text)}" for text in leaks.findings), "", leaks.consequence]
    lines += [_sentence(leaks.line)] if leaks.line else []
    return ["\n".join(f"> {line}".rstrip() for line in ("[!WARNING]", *lines))]


def table(shown: Table) -> list[str]:
    """Its heading, the table, and its notes."""
    heads = [
        ", ".join(part for part in (block.title, column) if part)
        for block in shown.blocks
        for column in block.columns
    ]
    second = [shown.second] if shown.second else []
    lines = [grid([shown.first, *second, *heads], (_cells(line, bool(shown.second)) for line in shown.lines))]
    if shown.notes:
        marked = ((f"<sup>{mark}</sup> " if mark else "", escape(text)) for mark, text in shown.notes)
        lines.append("\n".join(f"- {mark}{text}" for mark, text in marked))
    return [f"#### {escape(shown.title)}", *lines]


def fold(title: str, inside: Iterable[str]) -> list[str]:
    """Shown on demand; blank lines around what is inside, or it would be taken for HTML."""
    return [f"<details>\n<summary>{html.escape(_line(title))}</summary>", *inside, "</details>"]


def grid(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already; heads are plain text."""
    rows = [[escape(head) for head in heads], ["---"] * len(heads), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def listed(title: str, items: Iterable[str]) -> list[str]:
    """A heading, if there is one, and items that are Markdown already; nothing if there are none."""
    lines = [f"- {item}" for item in items]
    return [*([f"## {title}"] if title else []), "\n".join(lines)] if lines else []


def sources(of: Sequence[TestSet]) -> list[str]:
    """What the tables below were measured on."""
    if not of:
        return []
    lines = [
        {
            "Measured on": code(one.protocol),
            "Encoder": escape(one.encoders),
            "Data": escape(one.dataset),
            "Test rows": f"{one.n:,}",
            "Patients": f"{one.patients:,}",
            "Split": code(one.split[:12]),
            "Seeds": one.seeds,
            "Resamples": one.resamples,
            "Leakage": escape(one.leakage),
        }
        for one in of
    ]
    optional = ("Encoder", "Leakage")
    heads = [head for head in lines[0] if head not in optional or any(line[head] for line in lines)]
    return [grid(heads, ([line[head] or DASH for head in heads] for line in lines))]


def _cells(line: Any, second: bool) -> list[str]:
    name = escape(line.name) + (" (published)" if line.published else "")
    name += f" · {code(line.code)}" if line.code and line.code != line.name else ""
    return [name, *([escape(line.detail)] if second else []), *map(_entry, line.entries)]


def _entry(shown: Entry) -> str:
    marks = f" <sup>{','.join(shown.marks)}</sup>" if shown.marks else ""
    return escape(shown.text) + marks


def _fold(shown: Fold) -> list[str]:
    parts = [part for block in shown.inside for part in _block(block)]
    return fold(shown.title, parts[1:] if parts[0] == f"#### {escape(shown.title)}" else parts)


def _block(shown: Table | Picture) -> list[str]:
    return _picture(shown) if isinstance(shown, Picture) else table(shown)


def _picture(shown: Picture) -> list[str]:
    return [f"![{escape(shown.alt)}](pictures/{shown.name}.png)", escape(shown.caption)]


def _codes(names: str) -> str:
    return ", ".join(map(code, names.split(", ")))


def _protocol(about: Mapping[str, Any]) -> str:
    facts = "; ".join(f"{escape(name)} {escape(value)}" for name, value in about["facts"].items() if value)
    notes = "".join(f"\n  - {escape(note)}" for note in about["notes"])
    return f"{code(about['name'])} {escape(about['title'])}: {facts}{notes}"


def _sentence(text: str) -> str:
    return escape(text).replace("\\`", "`")


def _line(text: str) -> str:
    return " ".join(str(text).split())
