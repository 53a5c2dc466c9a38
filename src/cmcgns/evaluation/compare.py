"""Paired comparison of two encoders that `cmcgns evaluate` judged on the same test patients.

Differences A - B are taken on the same resamples of the same patients, over the seeds that both have. An interval
that leaves out 0 is called clear. Nothing is corrected for the number of comparisons: of twenty figures of two equal
encoders, one is expected to be clear by chance, so a claim belongs to a figure that was named beforehand (`primary`).

In simulations the intervals cover in 93 to 95 % (tests/metrics/test_coverage.py), but with areas above 0.95 and a
dozen positive patients in 86 to 91 %: do not rely on one that is barely clear there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cmcgns.common.errors import UserError
from cmcgns.evaluation.contract import Predictions, least_positives, primary_of, seed_measures
from cmcgns.evaluation.results import (
    cells_of,
    protocols_of,
    read_encoder,
    read_predictions,
    read_protocol,
    write_results,
)
from cmcgns.evaluation.tasks import get_task
from cmcgns.metrics.interval_table import leaves_out_zero, none_if_undefined
from cmcgns.metrics.intervals import PairedIntervals, paired_intervals
from cmcgns.metrics.measure import Measure

COMPARISON = "comparison.jsonl"


@dataclass(frozen=True)
class ComparisonRow:
    """One figure of two encoders.

    Attributes:
        protocol: id, with `@dataset` where the protocol does not name one.
        dataset: name in the manifest.
        fraction: per cent of the training patients; None for tasks that learn nothing.
        metric: for example `auroc`.
        label: class; empty for the mean over classes.
        primary: whether tables show this figure.
        a: figure of the first encoder, mean over the common seeds; None where undefined.
        b: of the second.
        difference: a - b.
        low: lower end of its paired 95 % interval; None where there is none.
        high: upper end.
        n: test rows.
        patients: test patients.
        seeds: that both have.
        resamples: behind the interval.
        clear: whether the interval leaves out 0.
        note: why there is no interval or a narrow one, classes left out of the mean, or what leakage was allowed.
        support: patients of the scarcest kind that the figure rests on, as in `ResultRow`.
    """

    protocol: str
    dataset: str
    fraction: float | None
    metric: str = ""
    label: str = ""
    primary: bool = False
    a: float | None = None
    b: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    patients: int = 0
    seeds: int = 0
    resamples: int = 0
    clear: bool = False
    note: str = ""
    support: int = 0


@dataclass(frozen=True)
class Comparison:
    """Two encoders, first minus second.

    Attributes:
        first: name of the first encoder.
        second: of the second.
        rows: every figure that both have.
        only_in_one: protocols, cells and figures that only one has, as text.
    """

    first: str
    second: str
    rows: tuple[ComparisonRow, ...]
    only_in_one: tuple[str, ...]


def compare_folders(first: Path, second: Path, resamples: int = 2000) -> Comparison:
    """Compare two folders of results.

    Raises:
        UserError: a folder without results, nothing in common, or different splits, protocols or rows under one name.
    """
    ours, theirs = protocols_of(first), protocols_of(second)
    only = _only_in_one("", ours, theirs, first, second)
    rows: list[ComparisonRow] = []
    for name in ours:
        if name in theirs:
            rows += _compare_protocol(first, second, name, resamples, only)
    if not rows:
        found = f"{', '.join(ours) or 'nothing'} against {', '.join(theirs) or 'nothing'}"
        raise UserError(f"{first} and {second} have no finished cell in common ({found})")
    return Comparison(read_encoder(first)["encoder"], read_encoder(second)["encoder"], tuple(rows), tuple(only))


def write_comparison_rows(folder: Path, comparison: Comparison) -> Path:
    """Write `comparison.jsonl`, one line for every figure; a reader never sees half of it."""
    folder.mkdir(parents=True, exist_ok=True)
    return write_results(folder / COMPARISON, comparison.rows, first=comparison.first, second=comparison.second)


def _compare_protocol(
    first: Path, second: Path, name: str, resamples: int, only: list[str]
) -> Iterator[ComparisonRow]:
    records = read_protocol(first, name), read_protocol(second, name)
    _check_records(name, records, (first, second))
    settings = records[0]["settings"]
    task = get_task(settings["task"])
    ours, theirs = cells_of(first, name), cells_of(second, name)
    only += _only_in_one(f"{name}, ", [cell.name for cell in ours], [cell.name for cell in theirs], first, second)
    common = [cell for cell in ours if cell in theirs]
    rules = [record.get("subset_rule", 1) for record in records]
    if rules[0] != rules[1] and any(cell.fraction not in (None, 100) for cell in common):
        raise UserError(
            f"{name}: the fractions of {first} and {second} were drawn by other rules (versions {rules[0]} and "
            f"{rules[1]}), so they are of other patients: evaluate both again"
        )
    note = "; ".join(
        f"LEAKAGE was allowed for {read_encoder(folder)['encoder']}: {record['leakage']}"
        for folder, record in zip((first, second), records, strict=True)
        if record.get("leakage")
    )
    for fraction in dict.fromkeys(cell.fraction for cell in common):
        cells = [cell for cell in common if cell.fraction == fraction]
        sides = [[read_predictions(folder, name, cell) for cell in cells] for folder in (first, second)]
        apart = [
            what
            for cell, one, other in zip(cells, *sides, strict=True)
            for what in _judged_otherwise(one, other, f"{name}, {cell.name}", first, second)
        ]
        if apart:
            only.append(f"{name}, {cells[0].name}: no difference: judged on other {apart[0]}")
            continue
        both = seed_measures(task, [*sides[0], *sides[1]], least_positives(settings))
        a, b = both[: len(cells)], both[len(cells) :]
        names = [[f"{one.metric} {one.label}".strip() for one in side[0].of] for side in (a, b)]
        only += _only_in_one(f"{name}, ", names[0], names[1], first, second)
        found = paired_intervals(a, b, sides[0][0].patients, resamples)
        table, dataset = found.difference, str(records[0].get("dataset", ""))
        template = ComparisonRow(
            name, dataset, fraction, n=table.rows, patients=table.patients, seeds=len(cells), note=note
        )
        primary = primary_of(str(settings.get("primary", "")), [measure.metric for measure in table.of])
        yield from _rows(template, found, _notes((first, second), (a[0].notes, b[0].notes)), primary)


def _notes(
    folders: tuple[Path, Path], notes: tuple[Mapping[Measure, str], Mapping[Measure, str]]
) -> dict[Measure, str]:
    """What is said of a figure of either encoder; once where it holds for both."""
    names = [read_encoder(folder)["encoder"] for folder in folders]
    found = {}
    for measure in {**notes[0], **notes[1]}:
        one, other = (side.get(measure, "") for side in notes)
        apart = "; ".join(f"{name}: {text}" for name, text in zip(names, (one, other), strict=True) if text)
        found[measure] = one if one == other else apart
    return found


def _rows(
    template: ComparisonRow, found: PairedIntervals, notes: Mapping[Measure, str], shown: str
) -> Iterator[ComparisonRow]:
    table = found.difference
    values = zip(none_if_undefined(found.first), none_if_undefined(found.second), strict=True)
    columns = zip(table.of, values, table.records(), table.reasons, table.support.tolist(), strict=True)
    for measure, (a, b), (difference, low, high, used), reason, support in columns:
        said = (reason, notes.get(measure, ""), template.note)
        yield replace(
            template,
            metric=measure.metric,
            label=measure.label,
            primary=measure.metric == shown and not measure.label,
            a=a,
            b=b,
            difference=difference,
            low=low,
            high=high,
            resamples=used,
            support=support,
            clear=leaves_out_zero(low, high),
            note="; ".join(text for text in said if text),
        )


def _check_records(name: str, records: tuple[dict[str, Any], dict[str, Any]], folders: tuple[Path, Path]) -> None:
    for key, what in (("split_sha256", "splits"), ("protocol_sha256", "settings of the protocol")):
        hashes = [str(record.get(key, "")) for record in records]
        if hashes[0] != hashes[1]:
            raise UserError(
                f"{name}: {folders[0]} and {folders[1]} have different {what} ({hashes[0][:12]} and "
                f"{hashes[1][:12]}), so their figures do not compare: evaluate both on the same prepared data"
            )


def _judged_otherwise(one: Predictions, other: Predictions, where: str, first: Path, second: Path) -> list[str]:
    """In what two predictions of the same test rows are not about the same.

    Raises:
        UserError: the rows or their patients are others.
    """
    ours, theirs = one.judged, other.judged
    apart = [what for what in ours | theirs if ours.get(what) != theirs.get(what)]
    for what in (each for each in ("rows", "patients") if each in apart):
        alone = sorted(set(ours[what]) ^ set(theirs[what]))
        detail = f"{len(alone)} are only in one, first {alone[0]}" if alone else "the same in another order"
        raise UserError(f"{where}: {first} and {second} judged different {what} ({detail}): evaluate both again")
    return apart


def _only_in_one(where: str, ours: Sequence[str], theirs: Sequence[str], first: Path, second: Path) -> list[str]:
    """What only one of two folders has, as text."""
    return [
        f"{where}{name}: only in {folder}"
        for names, others, folder in ((ours, theirs, first), (theirs, ours, second))
        for name in names
        if name not in others
    ]
