"""The comparison of docs/rivals.md in one table and one picture, from what is kept of the studies.

    PYTHONPATH=src python benchmarks/rivals_page.py --cost benchmarks/results/rivals-cost.json \
        --picture docs/images/rivals.png

`--cost` is what `benchmarks/rivals.py --json` wrote. The table goes to the terminal; both are made anew from
`benchmarks/results/rivals` and `rivals-hard` (`--beds`), as far as these have got.
"""

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cmcgns.reporting.evaluation.names import signed, span
from cmcgns.reporting.style import (
    BLUE,
    FAINT,
    GREEN,
    ORANGE,
    PURPLE,
    draw_difference,
    name_lines,
    new_panels,
    save_picture,
    shared_legend,
    title_panel,
)
from cmcgns.study.load import load_plan
from cmcgns.study.run import read_results
from cmcgns.study.table import SUMMARY, TableRow, table_rows

ROOT = Path(__file__).resolve().parents[1]
BEDS = {"plain studies": ROOT / "benchmarks/results/rivals", "hard studies": ROOT / "benchmarks/results/rivals-hard"}
COLOURS = (BLUE, ORANGE, GREEN, PURPLE)
Rows = dict[str, list[TableRow]]
"""Differences default - rival, by bed."""
Costs = Mapping[str, Mapping[str, Any]]


def read_bed(folder: Path) -> list[TableRow]:
    """The differences that a kept study has, one for each rival and measure."""
    plan = load_plan(str(folder / "study.yaml"))
    rows, own = table_rows(plan, read_results(plan, folder)), plan.settings.baseline
    # A second baseline is another form of the method, no rival of the first.
    return [row for row in rows if row.difference is not None and row.baseline == own[0] and row.cell not in own]


def step_ratio(costs: Costs, name: str) -> float:
    """Median over the turns of a step's time over that of CLIP."""
    pairs = zip(costs[name]["seconds"], costs["clip"]["seconds"], strict=True)
    return statistics.median(one / other for one, other in pairs)


def table(beds: Rows, costs: Costs) -> list[str]:
    """Lines of Markdown: the means of each rival on each bed, and what it costs."""
    heads = [f"default - rival, {name}" for name in beds]
    lines = [
        f"| rival | {' | '.join(heads)} | step, of `clip`'s | memory | parameters |",
        "|---" * (len(beds) + 4) + "|",
    ]
    for rival in dict.fromkeys(row.cell for rows in beds.values() for row in rows):
        found = [
            _entry(next((row for row in rows if (row.cell, row.title) == (rival, SUMMARY)), None))
            for rows in beds.values()
        ]
        lines.append(f"| `{rival}` | {' | '.join([*found, *_cost(costs, rival)])} |")
    return [*lines, f"| `default` | {' | '.join(['' for _ in beds] + _cost(costs, 'default'))} |"]


def _entry(row: TableRow | None) -> str:
    if row is None or row.difference is None:
        return "–"
    said = f"**{signed(row.difference)}**" if row.clear else signed(row.difference)
    return f"{said} ({span(row.low, row.high, signed)})"


def _cost(costs: Costs, name: str) -> list[str]:
    if name not in costs:
        return ["–"] * 3
    cost = costs[name]
    return [f"{step_ratio(costs, name):.2f}", f"{cost['memory']:.0f} MiB", f"{cost['parameters']:.2f} M"]


def picture(beds: Rows, costs: Costs) -> Figure:
    """A panel for each measure, their mean first, and one for the time of a step."""
    every = [row for rows in beds.values() for row in rows]
    rivals = list(dict.fromkeys(row.cell for row in every))
    titles = sorted(dict.fromkeys(row.title for row in every), key=lambda title: title != SUMMARY)
    figure, panels = new_panels(len(titles) + bool(costs), 2, 1.2 + 0.34 * len(rivals))
    for axes, title in zip(panels, titles, strict=False):
        title_panel(axes, title, "default − rival", width=46)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.axvline(0, color=FAINT, linewidth=1.2)
        for number, (bed, rows) in enumerate(beds.items()):
            for row in (row for row in rows if row.title == title and row.difference is not None):
                place = rivals.index(row.cell) + 0.3 * (number - (len(beds) - 1) / 2)
                draw_difference(axes, place, row.difference, row.low, row.high, row.clear, COLOURS[number], bed)
        name_lines(figure, axes, rivals)
    if costs:
        _draw_costs(figure, panels[-1], [name for name in ("default", *rivals) if name in costs], costs)
    shared_legend(figure, panels[:-1] if costs else panels)
    return figure


def _draw_costs(figure: Figure, axes: Any, names: Sequence[str], costs: Costs) -> None:
    title_panel(axes, "time of a step", "over that of clip", width=46)
    axes.barh(range(len(names)), [step_ratio(costs, name) for name in names], height=0.55, color=FAINT)
    name_lines(figure, axes, names)


def main() -> None:
    """Print the table; with --picture write the picture too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cost", type=Path)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--beds", type=Path, nargs="+", help="folders of kept studies, at most four")
    options = parser.parse_args()
    chosen = BEDS if options.beds is None else {folder.name: folder for folder in options.beds}
    beds = {name: read_bed(folder) if (folder / "study.yaml").is_file() else [] for name, folder in chosen.items()}
    costs = {} if options.cost is None else json.loads(options.cost.read_text("utf-8"))
    print("\n".join(table(beds, costs)))
    if options.picture is not None:
        save_picture(picture(beds, costs), options.picture)


if __name__ == "__main__":
    main()
