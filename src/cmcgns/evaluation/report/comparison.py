"""The report of a paired comparison: the only place where a difference may be set off."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from cmcgns.evaluation.compare import Comparison, ComparisonRow
from cmcgns.evaluation.report import markdown
from cmcgns.evaluation.report.forest import draw_differences
from cmcgns.evaluation.report.names import fraction_name, metric_name, paper_order
from cmcgns.evaluation.report.numbers import DASH, is_number, number, signed
from cmcgns.evaluation.report.page import render_page
from cmcgns.evaluation.report.statements import FEW_PATIENTS
from cmcgns.evaluation.report.write import save_pictures, to_csv
from cmcgns.files import write_text

_MAIN = "comparison-primary"
_FOLD = 12  # longer tables are shown on demand


def write_comparison(folder: Path, comparison: Comparison) -> Path:
    """Write `comparison.md`, `comparison.csv`, `comparison.html` and `pictures/`.

    Args:
        folder: to write into.
        comparison: paired differences, first minus second.

    Returns:
        Path of `comparison.html`, one file that needs nothing else.
    """
    first, second = comparison.first, comparison.second
    if first == second:
        first, second = f"{first} (A)", f"{second} (B)"
    tables = _tables(comparison.rows)
    content = {
        "title": f"{first} against {second}",
        "first": first,
        "second": second,
        "statements": _statements(comparison.rows, first, second),
        "tables": tables,
        "only_in_one": list(comparison.only_in_one),
    }
    images = save_pictures(folder, _figures(comparison.rows, first, second), ("comparison",))
    write_text(
        folder / "comparison.csv",
        to_csv((field.name for field in fields(ComparisonRow)), map(asdict, comparison.rows)),
    )
    write_text(folder / "comparison.md", _markdown(content, bool(images)))
    path = folder / "comparison.html"
    write_text(path, render_page("comparison.html.j2", image=images.get(_MAIN), **content))
    return path


def _tables(rows: Iterable[ComparisonRow]) -> list[dict[str, Any]]:
    """One for each protocol: mean figures first, then classes, on demand."""
    grouped: dict[str, list[ComparisonRow]] = {}
    for row in rows:
        grouped.setdefault(row.protocol, []).append(row)
    tables = []
    for name in sorted(grouped, key=_order):
        of = grouped[name]
        tables.append({
            "name": name,
            "parts": [
                ("Over all classes", [_line(row) for row in of if not row.label], False),
                ("By class", [_line(row) for row in of if row.label], sum(bool(row.label) for row in of) > _FOLD),
            ],
            "notes": list(dict.fromkeys(row.note for row in of if row.note)),
        })  # fmt: skip
    return tables


def _line(row: ComparisonRow) -> dict[str, Any]:
    found = row.difference is not None and is_number(row.difference)
    return {
        "metric": metric_name(row.metric),
        "label": row.label,
        "fraction": fraction_name(row.fraction) or DASH,
        "a": _value(row.a),
        "b": _value(row.b),
        "difference": signed(row.difference) if row.difference is not None and found else DASH,
        "interval": _span(row.low, row.high),
        "n": f"{row.n:,}",
        "patients": f"{row.patients:,}",
        "seeds": f"{row.seeds}" if row.fraction is not None else DASH,
        "is_clear": row.clear,
        "verdict": "clear" if row.clear else "not clear" if found else "undefined",
    }


def _statements(rows: Sequence[ComparisonRow], first: str, second: str) -> list[str]:
    clear = sum(row.clear for row in rows)
    found = [
        f"A difference is {first} minus {second}, taken on the same resamples of the same test patients, with its "
        "95 % interval. Patients that are hard for both cancel.",
        "A difference is called clear, and set off, where its interval leaves out 0. It says nothing about how the "
        "two would differ had they been pretrained again with another seed.",
    ]
    if rows:
        found.append(
            f"{clear} of {len(rows)} differences are clear. Were the two alike, about {0.05 * len(rows):.0f} "
            f"of {len(rows)} would be by chance: decide beforehand which one counts."
        )
    few = sorted({f"{row.protocol} ({row.patients})" for row in rows if row.patients < FEW_PATIENTS})
    if few:
        found.append(f"Fewer than {FEW_PATIENTS} test patients: {', '.join(few)}. Their intervals are too narrow.")
    return found


def _figures(rows: Sequence[ComparisonRow], first: str, second: str) -> dict[str, Any]:
    """A forest plot of the primary figures."""
    shown = sorted(
        (row for row in rows if row.primary and not row.label),
        key=lambda row: (_order(row.protocol), row.fraction or 0),
    )
    names, points = [], []
    for row in shown:
        if row.difference is None or row.low is None or row.high is None or not is_number(row.difference):
            continue
        about = (row.protocol, metric_name(row.metric), fraction_name(row.fraction))
        names.append(", ".join(part for part in about if part))
        points.append((row.difference, row.low, row.high, row.clear))
    title = f"Difference: {first} minus {second}"
    return {_MAIN: draw_differences(names, points, title)} if names else {}


def _markdown(content: dict[str, Any], picture: bool) -> str:
    parts = [f"# {markdown.escape(content['title'])}", _bullets(content["statements"])]
    parts += [f"![Paired differences](pictures/{_MAIN}.png)"] if picture else []
    head = ["Metric", "Class", "Labels", content["first"], content["second"], "Difference", "Interval"]
    for table in content["tables"]:
        parts.append(f"## {markdown.code(table['name'])}")
        for title, lines, _ in table["parts"]:
            if lines:
                cells = [_cells(line) for line in lines]
                parts += [f"### {title}", markdown.grid([*head, "Rows", "Patients", "Seeds", "Verdict"], cells)]
        parts += [_bullets(table["notes"])] if table["notes"] else []
    if content["only_in_one"]:
        parts += ["## Not compared", _bullets(content["only_in_one"])]
    return "\n\n".join(parts) + "\n"


def _cells(line: dict[str, Any]) -> list[str]:
    names = ("metric", "label", "fraction", "a", "b", "difference", "interval", "n", "patients", "seeds", "verdict")
    cells = {name: markdown.escape(line[name]) for name in names}
    if line["is_clear"]:
        cells["difference"] = f"**{cells['difference']}**"
    return list(cells.values())


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {markdown.escape(line)}" for line in lines)


def _order(name: str) -> tuple[int, int, int, str]:
    """By the task that the protocol's own name ends in."""
    base = name.partition("/")[0].replace("-", "_")
    tasks = ("linear", "knn", "detection", "segmentation", "zero_shot", "retrieval", "grounding")
    task = next((task for task in tasks if base.endswith(task)), "")
    return paper_order(name, task)


def _value(value: float | None) -> str:
    return number(value) if value is not None and is_number(value) else DASH


def _span(low: float | None, high: float | None) -> str:
    if low is None or high is None or not (is_number(low) and is_number(high)):
        return DASH
    return f"{signed(low)} to {signed(high)}"
