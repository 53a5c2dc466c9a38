"""The files that show a study: table.md, table.csv, table.json, index.html with one figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cmcgns.common.files import write_json, write_text
from cmcgns.common.page import page_template
from cmcgns.common.safe_text import markdown_text, write_rows
from cmcgns.reporting.evaluation.names import DASH, is_number, lower_is_better, number, signed, span
from cmcgns.reporting.style import FAINT, draw_difference, name_lines, new_panels, save_pictures, title_panel
from cmcgns.study.plan import Plan
from cmcgns.study.results import Result
from cmcgns.study.table import TableRow, table_rows

PAGE = "index.html"
_PICTURE = "study-differences"
_STATEMENTS = (
    "A value is the mean over the training seeds, ± their standard deviation.",
    "A difference is paired by seed and by test patient. Its 95 % interval says how it would vary with other "
    "patients and other seeds: 400 resamples of the patients, and with each the seeds drawn in all ways.",
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
        UserError: the disk refuses a file.
    """
    rows = table_rows(plan, results)
    write_json(out / "table.json", {"study": plan.settings.name, "rows": [asdict(row) for row in rows]})
    write_rows(out / "table.csv", TableRow, rows)
    baselines = list(dict.fromkeys(row.baseline for row in rows))  # the last one may have nothing left to compare
    content: dict[str, Any] = {
        "name": plan.settings.name,
        "compared": " or ".join(_contrast(plan, "cell", baseline) for baseline in baselines),
        "tables": [_table(plan, baseline, rows, with_values=baseline == baselines[0]) for baseline in baselines],
        "cells": list(_cells(plan, results)),
        "finished": len(results),
        "planned": len(plan.jobs),
        "statements": _STATEMENTS,
        "notes": list(_notes(plan, rows)),
        "common": ", ".join(plan.settings.set),
    }
    write_text(out / "table.md", _markdown(content))
    # Nothing is removed: another process may be writing the same picture.
    images = save_pictures(out, _forest(plan, rows, baselines), ())
    page = page_template("cmcgns.study", "index.html.j2", trim=True)
    write_text(out / PAGE, page.render(images=images, **content))
    return out / PAGE


def _heading(title: str, rows: Sequence[TableRow]) -> str:
    lower = any(lower_is_better(row.measure) for row in rows if row.title == title)
    return f"{title} (lower is better)" if lower else title


def _table(plan: Plan, baseline: str, rows: Sequence[TableRow], with_values: bool) -> dict[str, Any]:
    """Differences from one baseline as text: cells as lines or as columns, whichever leaves fewer columns."""
    own = [row for row in rows if row.baseline == baseline]
    cells = list(dict.fromkeys(row.cell for row in own))
    titles = list(dict.fromkeys(row.title for row in own))
    entries = {(row.cell, row.title): _entry(row, with_values) for row in own}
    heads = [_heading(title, rows) for title in titles]
    lines = [[entries[cell, title] for title in titles] for cell in cells]
    turned = len(titles) > len(cells)
    down, across = (heads, cells) if turned else (cells, heads)
    lines = [list(column) for column in zip(*lines, strict=True)] if turned else lines
    contrast = _contrast(plan, "cell", baseline)
    return {
        "caption": f"Values, and differences: {contrast}" if with_values else f"Differences: {contrast}",
        "corner": "Measure" if turned else "Cell",
        "heads": across,
        "lines": [{"head": head, "entries": line} for head, line in zip(down, lines, strict=True)],
    }


def _entry(row: TableRow, with_value: bool) -> dict[str, Any]:
    spread = f" ± {number(row.sd)}" if is_number(row.sd) else ""
    value = number(row.value) + spread if is_number(row.value) else DASH if row.applies else "not applicable"
    return {
        "value": value if with_value else "",
        "difference": signed(row.difference) if is_number(row.difference) else "" if with_value else DASH,
        "interval": span(row.low, row.high, signed),
        "is_clear": row.clear,
    }


def _cells(plan: Plan, results: Mapping[tuple[str, int], Result]) -> Iterator[dict[str, str]]:
    """What every cell is, and what it cost."""
    for cell in plan.cells:
        own = [result for (name, _), result in results.items() if name == cell.name]
        parameters = sorted({result.parameters for result in own})
        yield {
            "name": cell.name,
            "recipe": cell.recipe or plan.settings.recipe,
            "set": ", ".join(cell.set) or DASH,
            "seeds": f"{len(own)} of {sum(job.cell == cell.name for job in plan.jobs)}",
            "parameters": " to ".join(f"{count:,}" for count in parameters) or DASH,
            "seconds": f"{np.mean([result.seconds for result in own]):,.0f}" if own else DASH,
        }


def _notes(plan: Plan, rows: Sequence[TableRow]) -> Iterator[str]:
    """Every note once, with the measures that it is about, and the cells where not all of a measure are meant."""
    compared = [row for row in rows if row.difference is not None or row.note]
    for note in dict.fromkeys(row.note for row in compared if row.note):
        if all(row.note == note for row in compared):
            yield f"every difference: {note}"
            continue
        about = []
        for title in dict.fromkeys(row.title for row in compared):
            meant = [row for row in compared if row.title == title and row.note == note]
            every = len(meant) == sum(row.title == title for row in compared)
            names = ", ".join(dict.fromkeys(_contrast(plan, row.cell, row.baseline) for row in meant))
            about += [title if every else f"{title} ({names})"] if meant else []
        yield f"{'; '.join(about)}: {note}"


def _contrast(plan: Plan, cell: str, baseline: str) -> str:
    return " − ".join(plan.operands(cell, baseline))


def _markdown(content: Mapping[str, Any]) -> str:
    """The tables alone, for a paper's supplement or a pull request."""
    parts = [f"# {markdown_text(content['name'])}"]
    for table in content["tables"]:
        lines = [[table["corner"], *map(markdown_text, table["heads"])]]
        lines.append(["---"] * len(lines[0]))
        lines += [[markdown_text(line["head"]), *map(_markdown_entry, line["entries"])] for line in table["lines"]]
        parts.append(markdown_text(table["caption"]))
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    parts.append(" ".join(content["statements"]))
    parts.append("\n".join(f"- {markdown_text(note)}" for note in content["notes"]))
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown_entry(entry: Mapping[str, Any]) -> str:
    said = f"**{entry['difference']}**" if entry["is_clear"] else entry["difference"]
    said = f"{said} ({entry['interval']})" if entry["interval"] else said
    return "<br>".join(part for part in (entry["value"], said) if part)


def _forest(plan: Plan, rows: Sequence[TableRow], baselines: Sequence[str]) -> dict[str, Figure]:
    """A panel a measure: the differences with their intervals, filled where clear."""
    compared = [row for row in rows if is_number(row.difference)]
    titles = list(dict.fromkeys(row.title for row in compared))
    if not titles:
        return {}
    single = len(baselines) == 1
    apart = {
        (row.cell, row.baseline): row.cell if single else _contrast(plan, row.cell, row.baseline) for row in compared
    }
    places = {
        contrast: place for place, contrast in enumerate(sorted(apart, key=lambda each: baselines.index(each[1])))
    }
    figure, panels = new_panels(len(titles), 2, 1.1 + 0.3 * len(places))
    for axes, title in zip(panels, titles, strict=True):
        title_panel(axes, title, _contrast(plan, "cell", baselines[0]) if single else "Difference", width=46)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.axvline(0, color=FAINT, linewidth=1.2)
        for row in compared:
            if row.title == title and is_number(row.difference):
                draw_difference(axes, places[row.cell, row.baseline], row.difference, row.low, row.high, row.clear)
        name_lines(figure, axes, [apart[contrast] for contrast in places])
    return {_PICTURE: figure}
