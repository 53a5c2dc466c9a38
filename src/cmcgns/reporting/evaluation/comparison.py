"""The report of a paired comparison: the only place where a difference may be set off."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from cmcgns.common.files import write_text
from cmcgns.evaluation.compare import Comparison, ComparisonRow
from cmcgns.reporting.evaluation.comparison_markdown import render
from cmcgns.reporting.evaluation.forest import draw_differences
from cmcgns.reporting.evaluation.names import fraction_name, is_chance, is_number, metric_name, paper_order
from cmcgns.reporting.evaluation.notices import FEW_PATIENTS, LeakNotice
from cmcgns.reporting.evaluation.selection import extent
from cmcgns.reporting.evaluation.verdicts import ProtocolTables, describe, leaks_of, tally
from cmcgns.reporting.evaluation.write import render_page, save_pictures, to_csv

_MAIN = "comparison-primary"


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
        "leaks": LeakNotice(leaks_of(rows), consequence="These figures may be too high, and differences with them."),
        "summary": _summary(rows, primary),
        "primary": [describe(row) for row in primary],
        "statements": _statements(rows),
        "tables": _tables(rows),
        "only_in_one": list(comparison.only_in_one),
    }
    images = save_pictures(folder, _figures(primary), ("comparison",))
    write_text(
        folder / "comparison.csv",
        to_csv((field.name for field in fields(ComparisonRow)), map(asdict, comparison.rows)),
    )
    write_text(folder / "comparison.md", render(f"pictures/{_MAIN}.png" if images else "", **content))
    path = folder / "comparison.html"
    write_text(path, render_page("comparison.html.j2", image=images.get(_MAIN), **content))
    return path


def _summary(rows: Sequence[ComparisonRow], primary: Sequence[ComparisonRow]) -> list[str]:
    """The verdict in two sentences."""
    if not rows:
        return []
    clear = sum(row.clear for row in rows)
    found = [f"Primary figures: {tally(primary)}."] if primary else []
    found.append(
        f"All figures, classes included: {tally(rows)}. {clear} of {len(rows)} differences are clear; were the two "
        f"alike, about {0.05 * len(rows):.0f} of {len(rows)} would be by chance."
    )
    return found


def _statements(rows: Sequence[ComparisonRow]) -> list[str]:
    found = [
        "A difference is A minus B, taken on the same resamples of the same test patients, with its 95 % interval. "
        "Patients that are hard for both cancel.",
        "One is called better, and the difference is set off, where the interval leaves out 0. It says nothing about "
        "how the two would differ had they been pretrained again with another seed.",
        "Decide beforehand which figure counts: among many, some are clear by chance.",
    ]
    few = sorted({f"{row.protocol} ({row.patients})" for row in rows if row.patients < FEW_PATIENTS})
    if few:
        found.append(f"Fewer than {FEW_PATIENTS} test patients: {', '.join(few)}. Their intervals are too narrow.")
    return found


def _tables(rows: Iterable[ComparisonRow]) -> list[ProtocolTables]:
    grouped: dict[str, list[ComparisonRow]] = {}
    for row in rows:
        grouped.setdefault(row.protocol, []).append(row)
    return [
        ProtocolTables(
            name,
            _measured([row for row in of if not row.label] or of),
            [describe(row) for row in of if not row.label],
            [describe(row) for row in of if row.label],
            list(dict.fromkeys(row.note for row in of if row.note)),
        )
        for name, of in grouped.items()
    ]


def _measured(rows: Sequence[ComparisonRow]) -> str:
    counts = (f"{extent(row.n for row in rows)} test rows", f"{extent(row.patients for row in rows)} patients")
    learned = [row.seeds for row in rows if row.fraction is not None]
    seeds = f", {_several(extent(learned), 'seed')} that both have" if learned else ""
    return f"Measured on {' of '.join(counts)}{seeds}, {extent(row.resamples for row in rows)} resamples."


def _several(count: str, name: str) -> str:
    return f"{count} {name}" if count == "1" else f"{count} {name}s"


def _figures(primary: Sequence[ComparisonRow]) -> dict[str, Any]:
    """A forest plot of the primary figures."""
    names, points = [], []
    for row in primary:
        if row.difference is None or row.low is None or row.high is None or not is_number(row.difference):
            continue
        about = (row.protocol, metric_name(row.metric), fraction_name(row.fraction))
        names.append(", ".join(part for part in about if part))
        points.append((row.difference, row.low, row.high, row.clear))
    return {_MAIN: draw_differences(names, points, "Difference: A minus B")} if names else {}


def _order(name: str) -> tuple[int, int, int, str]:
    """By the task that the protocol's own name ends in."""
    base = name.partition("/")[0].replace("-", "_")
    tasks = ("linear", "knn", "detection", "segmentation", "zero_shot", "retrieval", "grounding")
    task = next((task for task in tasks if base.endswith(task)), "")
    return paper_order(name, task)
