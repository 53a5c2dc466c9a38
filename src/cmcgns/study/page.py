"""The files that show a study: table.md, table.csv, table.json, index.html with one figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cmcgns.common.files import write_json, write_text
from cmcgns.common.page import markdown_text, page_template
from cmcgns.common.spreadsheet import write_spreadsheet
from cmcgns.reporting.evaluation.names import DASH, is_number, lower_is_better, number, signed, span
from cmcgns.reporting.style import BLUE, FAINT, name_lines, new_panels, save_pictures, title_panel
from cmcgns.study.plan import Plan
from cmcgns.study.results import Result
from cmcgns.study.table import TableRow, table_rows

PAGE = "index.html"
_PICTURE = "study-differences"
_STATEMENTS = (
    "A value is the mean over the training seeds, ± their standard deviation.",
    "A difference is paired by seed and by test patient. Its 95 % interval says how it would vary with other "
    "patients and other seeds: 400 resamples of the patients, the seeds drawn with replacement in each.",
    "Where the interval leaves out 0 the difference is set off. Among many, some are so by chance: decide beforehand "
    "which one counts.",
)


def write_table(plan: Plan, results: Mapping[tuple[str, int], Result], out: Path) -> Path:
    """Write the table in every form.

    Args:
        plan: the study.
        results: by cell and seed; may be incomplete.
        out: the study's folder.

    Returns:
        Path of `index.html`, one file that needs nothing else.

    Raises:
        UserError: results that do not pair, or the disk refuses a file.
    """
    rows = table_rows(plan, results)
    lines = list(_lines(plan, results, rows))
    write_json(out / "table.json", {"study": plan.settings.name, "rows": [asdict(row) for row in rows]})
    columns = [field.name for field in fields(TableRow)]
    write_spreadsheet(out / "table.csv", columns, (asdict(row).values() for row in rows))
    notes = list(dict.fromkeys(f"{row.cell}, {row.title}: {row.note}" for row in rows if row.note))
    content: dict[str, Any] = {
        "name": plan.settings.name,
        "baseline": plan.settings.baseline,
        "titles": [_heading(title, rows) for title in dict.fromkeys(row.title for row in rows)],
        "cells": lines,
        "finished": len(results),
        "planned": len(plan.jobs),
        "statements": _STATEMENTS,
        "notes": notes,
        "common": ", ".join(plan.settings.set),
    }
    write_text(out / "table.md", _markdown(content))
    # Nothing is removed: another process may be writing the same picture.
    images = save_pictures(out, _forest(rows, plan.settings.baseline), ())
    page = page_template("cmcgns.study", "index.html.j2", trim=True)
    write_text(out / PAGE, page.render(images=images, **content))
    return out / PAGE


def _heading(title: str, rows: Sequence[TableRow]) -> str:
    lower = any(lower_is_better(row.measure) for row in rows if row.title == title)
    return f"{title} (lower is better)" if lower else title


def _lines(
    plan: Plan, results: Mapping[tuple[str, int], Result], rows: Sequence[TableRow]
) -> Iterator[dict[str, Any]]:
    """A line of the table for every cell, as text."""
    for cell in plan.cells:
        own = [result for (name, _), result in results.items() if name == cell.name]
        parameters = sorted({result.parameters for result in own})
        yield {
            "name": cell.name,
            "recipe": cell.recipe or plan.settings.recipe,
            "set": ", ".join(cell.set) or DASH,
            "seeds": f"{len(own)} of {len(plan.settings.seeds)}",
            "parameters": " to ".join(f"{count:,}" for count in parameters) or DASH,
            "seconds": f"{np.mean([result.seconds for result in own]):,.0f}" if own else DASH,
            "entries": [_entry(row) for row in rows if row.cell == cell.name],
        }


def _entry(row: TableRow) -> dict[str, Any]:
    spread = f" ± {number(row.sd)}" if is_number(row.sd) else ""
    return {
        "value": number(row.value) + spread if is_number(row.value) else DASH,
        "difference": signed(row.difference) if is_number(row.difference) else "",
        "interval": span(row.low, row.high, signed),
        "is_clear": row.clear,
    }


def _markdown(content: Mapping[str, Any]) -> str:
    """The table alone, for a paper's supplement or a pull request."""
    heads = ["cell"]
    for title in content["titles"]:
        heads += [markdown_text(title), f"− {markdown_text(content['baseline'])}"]
    lines = [heads, ["---"] * len(heads)]
    for cell in content["cells"]:
        line = [markdown_text(cell["name"])]
        for entry in cell["entries"]:
            said = f"**{entry['difference']}**" if entry["is_clear"] else entry["difference"]
            line += [entry["value"], f"{said} ({entry['interval']})" if entry["interval"] else said or DASH]
        lines.append(line)
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    notes = "".join(f"- {markdown_text(note)}\n" for note in content["notes"])
    return (
        f"# {markdown_text(content['name'])}\n\n{table}\n\n{' '.join(content['statements'])}\n\n{notes}".strip()
        + "\n"
    )


def _forest(rows: Sequence[TableRow], baseline: str) -> dict[str, Figure]:
    """A panel a measure: the differences to the baseline with their intervals, filled where clear."""
    cells = [cell for cell in dict.fromkeys(row.cell for row in rows) if cell != baseline]
    titles = list(dict.fromkeys(row.title for row in rows if is_number(row.difference)))
    if not titles:
        return {}
    figure, panels = new_panels(len(titles), 2, 1.1 + 0.3 * len(cells))
    for axes, title in zip(panels, titles, strict=True):
        title_panel(axes, title, f"Difference to {baseline}", width=46)
        axes.axvline(0, color=FAINT, linewidth=1.2)
        for row in rows:
            if row.title == title and is_number(row.difference):
                place = cells.index(row.cell)
                if is_number(row.low) and is_number(row.high):
                    axes.hlines(place, row.low, row.high, color=BLUE, linewidth=2)
                filled = BLUE if row.clear else "white"
                axes.plot(row.difference, place, "o", markersize=7, color=BLUE, markerfacecolor=filled, zorder=3)
        name_lines(figure, axes, cells)
    return {_PICTURE: figure}
