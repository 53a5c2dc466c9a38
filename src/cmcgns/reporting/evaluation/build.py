"""From result rows to tables: summary, the paper's, further metrics, classes, subgroups, calibration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cmcgns.evaluation.results import ResultRow
from cmcgns.reporting.evaluation.names import (
    CALIBRATION,
    DASH,
    fraction_name,
    interval_text,
    is_number,
    metric_name,
    number,
    of_the_labels,
    protocol_title,
)
from cmcgns.reporting.evaluation.notices import Records
from cmcgns.reporting.evaluation.selection import Selection
from cmcgns.reporting.evaluation.tables import ColumnGroup, Entry, Line, Notes, Table, entry

PUBLISHED_FRACTIONS = (1.0, 10.0, 100.0)
Counts = Mapping[str, Callable[[ResultRow], str]]  # by the heading of a column
Query = tuple[str, dict[str, Any]]  # name of a line or column, and what :meth:`Selection.find` looks for
PUBLISHED_NOTE = (
    "Published figures: copied from papers, measured under the legacy protocol by other hands, without intervals. "
    "Copied tables disagree by several points: orientation only."
)


def main_table(selection: Selection, protocols: Sequence[str], named: bool) -> Table:
    """The paper's table: the encoder's row, one block of fractions a protocol, published figures below.

    Args:
        selection: the rows.
        protocols: columns; either all legacy or none of them.
        named: whether columns say the protocol; not where the heading above does.
    """
    notes = Notes()
    blocks = [_block(selection, name, named) for name in protocols]
    columns = [(name, selection.primary(name), share) for name in protocols for share in selection.fractions(name)]
    found = [(selection.find(name, of, fraction=share), name, share) for name, of, share in columns]
    own = Line(selection.encoder, tuple(entry(selection, *one, notes) for one in found))
    published = _published(selection, protocols)
    listed = notes.listed() + ([("", PUBLISHED_NOTE)] if published else [])
    return Table("By share of the labels", "Encoder", tuple(blocks), [own, *published], listed)


def _block(selection: Selection, protocol: str, named: bool) -> ColumnGroup:
    metric = metric_name(selection.primary(protocol))
    columns = tuple(fraction_name(fraction) or "value" for fraction in selection.fractions(protocol))
    if not named:
        return ColumnGroup(metric, "", columns)
    return ColumnGroup(f"{protocol_title(protocol, selection.about)}: {metric}", protocol, columns)


def metric_table(selection: Selection, protocol: str, metrics: Sequence[str], title: str) -> Table:
    """Metrics of one protocol over all classes: a row for each metric."""
    lines: list[Query] = [(metric_name(metric), {"metric": metric}) for metric in metrics]
    return _rows_table(selection, protocol, title, "Metric", lines, _shares_of(selection, protocol))


def class_table(selection: Selection, protocol: str) -> Table:
    """The primary metric of each class."""
    metric = selection.primary(protocol)
    labels = ["", *selection.labels(protocol, metric)]
    lines: list[Query] = [(label or "mean over classes", {"metric": metric, "label": label}) for label in labels]
    title, shares = f"{metric_name(metric)} by class", _shares_of(selection, protocol)
    return _rows_table(selection, protocol, title, "Class", lines, shares, _class_counts(selection, protocol))


def class_metrics_table(selection: Selection, protocol: str, metrics: Sequence[str]) -> Table:
    """Further metrics of each class at the largest fraction: a column for each metric."""
    fraction = selection.fractions(protocol)[-1]
    labels = dict.fromkeys(label for metric in metrics for label in selection.labels(protocol, metric))
    columns: list[Query] = [(metric_name(metric), {"metric": metric, "fraction": fraction}) for metric in metrics]
    share = of_the_labels(fraction)
    title = f"Further metrics by class{', ' if share else ''}{share}"
    lines: list[Query] = [(label, {"label": label}) for label in labels]
    return _rows_table(selection, protocol, title, "Class", lines, columns, keep_empty=True)


def subgroup_table(selection: Selection, protocol: str) -> Table:
    """The primary metric in each subgroup, everyone first."""
    metric = selection.primary(protocol)
    groups = ["", *selection.groups(protocol, metric)]
    lines: list[Query] = [(group or "everyone", {"metric": metric, "group": group}) for group in groups]
    title, shares = f"{metric_name(metric)} in subgroups", _shares_of(selection, protocol)
    counts: Counts = {"test rows": lambda row: f"{row.n:,}", "patients": lambda row: f"{row.patients:,}"}
    return _rows_table(selection, protocol, title, "Subgroup", lines, shares, counts)


def calibration_metrics(selection: Selection, protocol: str) -> list[str]:
    """Which of the calibration metrics the protocol has."""
    return [metric for metric in CALIBRATION if metric in selection.metrics(protocol)]


def further_metrics(selection: Selection, protocol: str) -> list[str]:
    """All metrics but the primary one and those of calibration."""
    return [metric for metric in selection.metrics(protocol)[1:] if metric not in CALIBRATION]


def _shares_of(selection: Selection, protocol: str) -> list[Query]:
    """A column for each fraction."""
    return [(fraction_name(share) or "value", {"fraction": share}) for share in selection.fractions(protocol)]


def _rows_table(
    selection: Selection,
    protocol: str,
    title: str,
    first: str,
    lines: Iterable[Query],
    columns: Sequence[Query],
    counts: Counts | None = None,
    keep_empty: bool = False,
) -> Table:
    notes, shown, counts = Notes(), list[Line](), counts or {}
    for name, of in lines:
        found = [(query, selection.find(protocol, **of, **query)) for _, query in columns]
        there = [row for _, row in found if row]
        if there or keep_empty:
            cells = (entry(selection, row, protocol, query["fraction"], notes) for query, row in found)
            known = [row for row in there if is_number(row.value)][-1:]  # without a figure, n may be everyone's
            numbers = (Entry(count(known[0]) if known else DASH) for count in counts.values())
            shown.append(Line(name, (*numbers, *cells)))
    block = ColumnGroup("", protocol, (*counts, *(heading for heading, _ in columns)))
    return Table(title, first, (block,), shown, notes.listed())


def _class_counts(selection: Selection, protocol: str) -> Counts:
    """Positives of each class where they are known; else its rows where classes differ in them."""
    everything = [
        row for row in selection.of(protocol) if row.metric == selection.primary(protocol) and not row.group
    ]
    if any(row.positives is not None for row in everything):
        return {"positives": lambda row: "" if row.positives is None else f"{row.positives:,} of {row.n:,}"}
    return {"test rows": lambda row: f"{row.n:,}"} if len({row.n for row in everything}) > 1 else {}


def _published(selection: Selection, protocols: Sequence[str]) -> list[Line]:
    """A line for every published model; none beside anything but legacy protocols."""
    models = dict.fromkeys(model for name in protocols for model in selection.published(name))
    lines = []
    for model in models:
        cells = []
        for name in protocols:
            known = dict(zip(PUBLISHED_FRACTIONS, selection.published(name).get(model, []), strict=False))
            found = [known.get(fraction or 0) for fraction in selection.fractions(name)]
            cells += [Entry("") if value is None else Entry(number(value / 100)) for value in found]
        if any(cell.value for cell in cells):
            lines.append(Line(model, tuple(cells), published=True))
    return lines


_SHARES = 3  # of the labels; more are in the sections


def primary_table(selection: Selection, kept: Records) -> Table:
    """The primary figure of every protocol, with what guessing gets and how much was judged."""
    notes, (shares, left) = Notes(), _shares(selection)
    one = len([share for share in shares if share is not None]) < 2  # then a column says it
    names = ["Labels", "Value"] if one else [fraction_name(share) or "No labels" for share in shares]
    lines = [_line(selection, kept, name, None if one else shares, notes) for name in selection.protocols]
    block = ColumnGroup("", "", ("Measure", *names, "Chance", "Test rows", "Patients"))
    return Table("Primary figures", "Protocol", (block,), lines, notes.listed() + _about_shares(shares, left))


def _shares(selection: Selection) -> tuple[list[float | None], list[float]]:
    """What learns nothing first, then at most three shares of the labels (smallest, middle, largest); the others."""
    found = {fraction for name in selection.protocols for fraction in selection.fractions(name)}
    learned = sorted(fraction for fraction in found if fraction is not None)
    many = len(learned) > _SHARES
    shown = [learned[0], learned[len(learned) // 2], learned[-1]] if many else learned
    return [*([None] if None in found else []), *shown], [share for share in learned if share not in shown]


def _about_shares(shares: Sequence[float | None], left: Sequence[float]) -> list[tuple[str, str]]:
    text = "Labels, in per cent: the share that a head or classifier on the encoder was trained on."
    texts = [text] if list(shares) != [None] else []
    if left:
        texts.append(f"Further shares are in the sections below: {', '.join(map(fraction_name, left))}.")
    return [("", text) for text in texts]


def _line(
    selection: Selection, kept: Records, protocol: str, shares: Sequence[float | None] | None, notes: Notes
) -> Line:
    """One protocol; without shares, its only one is named in a column."""
    theirs = selection.fractions(protocol)
    metric = selection.primary(protocol)
    rows = {share: selection.find(protocol, metric, fraction=share) for share in theirs}
    cells = [Entry(fraction_name(theirs[0]) or "none")] if shares is None else []
    for share in theirs if shares is None else shares:
        row = rows.get(share)
        shown = replace(row, sd=None) if row else None  # sd is in the sections
        cells.append(entry(selection, shown, protocol, share, notes) if share in theirs else Entry(""))
    last = [row for row in rows.values() if row][-1:]
    level = kept.chance(selection, last[0]) if last else None
    counts = [(f"{row.n:,}", f"{row.patients:,}") for row in last] or [(DASH, DASH)]
    ends = (interval_text(level), *counts[0])
    entries = (Entry(metric_name(metric)), *cells, *map(Entry, ends))
    return Line(protocol_title(protocol, selection.about), entries, code=protocol)
