"""The first table of the page: one line for every protocol and data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cmcgns.evaluation.report.kept import Kept
from cmcgns.evaluation.report.names import fraction_name, metric_name, protocol_title
from cmcgns.evaluation.report.numbers import DASH, number
from cmcgns.evaluation.report.selection import Selection
from cmcgns.evaluation.report.tables import Block, Entry, Line, Notes, Table, entry

_SHARES = 3  # of the labels; more are in the sections


def primary_table(selection: Selection, kept: Kept) -> Table:
    """The primary figure of every protocol and encoder, with what guessing gets and how much was judged.

    Args:
        selection: the rows.
        kept: what a random ranking gets in retrieval.
    """
    notes, shares = Notes(), _shares(selection)
    one = len([share for share in shares if share is not None]) < 2  # then a column says it
    names = ["Labels", "Value"] if one else [fraction_name(share) or "No labels" for share in shares]
    lines = [
        _line(selection, kept, name, encoder, None if one else shares, notes)
        for name in selection.protocols
        for encoder in selection.encoders_of(name)
    ]
    block = Block("", "", ("Measure", *names, "Chance", "Test rows", "Patients"))
    table = Table("Primary figures", "Protocol", (block,), lines, notes.listed() + _about_shares(selection, shares))
    table.second = "Encoder" if len(selection.encoders) > 1 else ""
    return table


def _shares(selection: Selection) -> list[float | None]:
    """What learns nothing first, then at most three shares of the labels: smallest, middle, largest."""
    found = {fraction for name in selection.protocols for fraction in selection.fractions(name)}
    learned = sorted(fraction for fraction in found if fraction is not None)
    if len(learned) > _SHARES:
        learned = [learned[0], learned[len(learned) // 2], learned[-1]]
    return [*([None] if None in found else []), *learned]


def _about_shares(selection: Selection, shares: Sequence[float | None]) -> list[tuple[str, str]]:
    found = {fraction for name in selection.protocols for fraction in selection.fractions(name)}
    text = "Labels, in per cent: the share that a head or classifier on the encoder was trained on."
    texts = [text] if found != {None} else []
    if left := sorted(fraction for fraction in found - set(shares) if fraction is not None):
        texts.append(f"Further shares are in the sections below: {', '.join(map(fraction_name, left))}.")
    return [("", text) for text in texts]


def _line(
    selection: Selection,
    kept: Kept,
    protocol: str,
    encoder: str,
    shares: Sequence[float | None] | None,
    notes: Notes,
) -> Line:
    """One protocol and encoder; without shares, its only one is named in a column."""
    theirs = selection.fractions(protocol)
    metric, about = selection.primary(protocol), selection.about.get(protocol)
    rows = {share: selection.find(protocol, encoder, metric, fraction=share) for share in theirs}
    cells = [Entry(fraction_name(theirs[0]) or "none")] if shares is None else []
    for share in theirs if shares is None else shares:
        row, seeds = rows.get(share), about.seeds if about is not None and share is not None else 0
        shown = replace(row, sd=None) if row else None  # sd is in the sections
        cell = entry(shown, selection.why_missing(protocol, share), notes, seeds)
        cells.append(cell if share in theirs else Entry(""))
    last = [row for row in rows.values() if row][-1:]
    level = kept.chance(selection, last[0]) if last else None
    counts = [(f"{row.n:,}", f"{row.patients:,}") for row in last] or [(DASH, DASH)]
    ends = (DASH if level is None else number(level), *counts[0])
    entries = (Entry(metric_name(metric)), *cells, *map(Entry, ends))
    return Line(protocol_title(protocol, selection.about), entries, encoder, code=protocol)
