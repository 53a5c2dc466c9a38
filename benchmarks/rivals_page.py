"""The tables and the picture of docs/rivals.md, made anew from what is kept of the studies.

    PYTHONPATH=src python benchmarks/rivals_page.py                             # writes both
    PYTHONPATH=src python benchmarks/rivals_page.py --beds DIR… --picture FILE  # of studies of yours, to the terminal

What is kept are `benchmarks/results/rivals`, `rivals-hard` and `rivals-ideas`, as far as these have got, and what
`rivals.py --json` wrote, `rivals-cost.json`. A test holds the page to the tables.
"""

import argparse
import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import t as student

import ideas  # noqa: F401  # whose objectives the study of that name has
import trials
from cmcgns.common.errors import UserError
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
from cmcgns.study.plan import Plan
from cmcgns.study.results import Result
from cmcgns.study.run import kept_results
from cmcgns.study.settings import SUMMARY
from cmcgns.study.table import TableRow, standardised_by_seed, table_rows

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/rivals.md"
MARKS = {
    "rivals": ("<!-- made by benchmarks/rivals_page.py -->", "<!-- end -->"),
    "ideas": ("<!-- ideas, made by benchmarks/rivals_page.py -->", "<!-- end of ideas -->"),
    "trials": ("<!-- trials, made by benchmarks/rivals_page.py -->", "<!-- end of trials -->"),
}
PICTURE = ROOT / "docs/images/rivals.png"
COST = ROOT / "benchmarks/results/rivals-cost.json"
BEDS = {"plain studies": ROOT / "benchmarks/results/rivals", "hard studies": ROOT / "benchmarks/results/rivals-hard"}
IDEAS = ROOT / "benchmarks/results/rivals-ideas"
TRIALS = ROOT / "benchmarks/results/rivals-tuning"
SAME_TIME = {"twice-as-long": "gloria"}
"""Cells that stand beside one rival alone, for whose time they are trained."""
COLOURS = (BLUE, ORANGE, GREEN, PURPLE)
Rows = dict[str, list[TableRow]]
"""Differences default - cell by bed, and behind them those of further baselines: other forms of the method."""
BySeed = dict[str, dict[str, list[float]]]
"""Means of standardised differences default - cell of each seed, by bed and cell."""
Costs = Mapping[str, Mapping[str, Any]]


def read_study(folder: Path) -> tuple[Plan, dict[tuple[str, int], Result]]:
    """A kept study and its results."""
    plan = load_plan(str(folder / "study.yaml"))
    return plan, kept_results(plan, folder)


def read_beds(folders: Mapping[str, Path]) -> tuple[Rows, BySeed]:
    """What the kept studies have got, by bed."""
    studies = {name: read_study(folder) for name, folder in folders.items()}
    rows = {name: differences(*study) for name, study in studies.items()}
    by_seed = {
        name: {
            cell.name: list(standardised_by_seed(plan, results, cell.name, plan.settings.baseline[0]).values())
            for cell in plan.cells
        }
        for name, (plan, results) in studies.items()
    }
    return rows, by_seed


def differences(plan: Plan, results: dict[tuple[str, int], Result]) -> list[TableRow]:
    """The differences that a study has, for each measure; what is trained for a rival's time stands beside that."""
    return [
        row
        for row in table_rows(plan, results)
        if row.difference is not None and row.cell == SAME_TIME.get(row.baseline, row.cell)
    ]


def against_rivals(beds: Rows) -> Rows:
    """The differences between the method as it is, the first baseline, and what is no form of it."""
    forms = list(dict.fromkeys(row.baseline for rows in beds.values() for row in rows))
    return {
        name: [row for row in rows if row.baseline == forms[0] and row.cell not in forms]
        for name, rows in beds.items()
    }


def step_ratio(costs: Costs, name: str) -> float:
    """Median over the turns of a step's time over that of CLIP."""
    pairs = zip(costs[name]["seconds"], costs["clip"]["seconds"], strict=True)
    return statistics.median(one / other for one, other in pairs)


def measure_tables(rows: Sequence[TableRow], heading: str = "{} −") -> list[str]:
    """Lines of Markdown: one table for each baseline of a bed, with a column for each measure.

    Args:
        rows: of one study.
        heading: of the first column, in which the baseline is set.
    """
    lines = []
    for baseline in dict.fromkeys(row.baseline for row in rows):
        own = [row for row in rows if row.baseline == baseline]
        titles = list(dict.fromkeys(row.title for row in own))
        lines += ["", f"| {heading.format(baseline)} | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
        for cell in dict.fromkeys(row.cell for row in own):
            lines.append(f"| `{cell}` | {' | '.join(_entry(_find(own, cell, title)) for title in titles)} |")
    return lines


def table(beds: Rows, costs: Costs) -> list[str]:
    """Lines of Markdown: the means of each rival on each bed, and what it costs."""
    beds, forms = against_rivals(beds), dict.fromkeys(row.baseline for rows in beds.values() for row in rows)
    heads = [f"default − rival, {name}" for name in beds]
    lines = [
        f"| rival | {' | '.join(heads)} | step, of `clip`'s | memory | parameters |",
        "|---" * (len(beds) + 4) + "|",
    ]
    for rival in dict.fromkeys(row.cell for rows in beds.values() for row in rows):
        found = [_entry(_find(rows, rival, SUMMARY)) for rows in beds.values()]
        lines.append(f"| `{rival}` | {' | '.join([*found, *_cost(costs, rival)])} |")
    costly = [form for form in forms if form in costs]
    return lines + [f"| `{form}` | {' | '.join(['' for _ in beds] + _cost(costs, form))} |" for form in costly]


def student_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of a mean over training seeds, by Student's t; the test patients are as they are."""
    mean, free = statistics.mean(values), len(values) - 1
    reach = float(student.ppf(0.975, free)) * statistics.stdev(values) / math.sqrt(len(values))
    return mean - reach, mean + reach


def seeds_table(beds: Rows, by_seed: BySeed) -> list[str]:
    """Lines of Markdown: how far the mean of standardised differences rests on few seeds, and on which measures."""
    heads = [f"{name}: seeds | their mean (Student's t)" for name in beds]
    lines = [f"| rival | {' | '.join(heads)} | measures |", "|---" * (2 * len(beds) + 2) + "|"]
    own = against_rivals(beds)
    for rival in dict.fromkeys(row.cell for rows in own.values() for row in rows):
        found = [entry for name in own for entry in _of_seeds(by_seed[name].get(rival, []))]
        row = next(row for rows in own.values() if (row := _find(rows, rival, SUMMARY)))
        whole = row.note.partition(" alone")[0].removeprefix("over ") if row.note.startswith("over ") else "all six"
        lines.append(f"| `{rival}` | {' | '.join(found)} | {whole} |")
    return lines


def _of_seeds(values: Sequence[float]) -> list[str]:
    if len(values) < 2:
        return [str(len(values) or "–"), "–"]
    low, high = student_interval(values)
    said = signed(statistics.mean(values))
    return [str(len(values)), f"{f'**{said}**' if low > 0 or high < 0 else said} ({span(low, high, signed)})"]


def _find(rows: Sequence[TableRow], cell: str, title: str) -> TableRow | None:
    return next((row for row in rows if (row.cell, row.title) == (cell, title)), None)


def _entry(row: TableRow | None) -> str:
    if row is None or row.difference is None:
        return "–"
    said = f"**{signed(row.difference)}**" if row.clear else signed(row.difference)
    lone = "; one seed" if row.shared == 1 else ""  # whose interval is over patients alone
    return f"{said} ({span(row.low, row.high, signed)}{lone})"


def _cost(costs: Costs, name: str) -> list[str]:
    if name not in costs:
        return ["–"] * 3
    cost = costs[name]
    return [f"{step_ratio(costs, name):.2f}", f"{cost['memory']:.0f} MiB", f"{cost['parameters']:.2f} M"]


def picture(beds: Rows, costs: Costs) -> Figure:
    """A panel for each measure, their mean first, and one for the time of a step."""
    beds = against_rivals(beds)
    every = [row for rows in beds.values() for row in rows]
    rivals = list(dict.fromkeys(row.cell for row in every))
    titles = sorted(dict.fromkeys(row.title for row in every), key=lambda title: title != SUMMARY)
    figure, panels = new_panels(len(titles) + bool(costs), 2, 1.2 + 0.34 * len(rivals))
    for axes, title in zip(panels, titles, strict=False):
        _draw_measure(axes, title, rivals, beds)
        name_lines(figure, axes, rivals)
    if costs:
        _draw_costs(figure, panels[-1], [name for name in ("default", *rivals) if name in costs], costs)
    shared_legend(figure, panels[:-1] if costs else panels)
    return figure


def _draw_measure(axes: Any, title: str, rivals: Sequence[str], beds: Rows) -> None:
    title_panel(axes, title, "default − rival (hollow: the interval holds 0)", width=46)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.axvline(0, color=FAINT, linewidth=1.2)
    for number, (bed, rows) in enumerate(beds.items()):
        for row in (row for row in rows if row.title == title and row.difference is not None):
            place = rivals.index(row.cell) + 0.3 * (number - (len(beds) - 1) / 2)
            draw_difference(axes, place, row.difference, row.low, row.high, row.clear, COLOURS[number], bed)
    for place, rival in enumerate(rivals):
        if not any(_find(rows, rival, title) for rows in beds.values()):
            said = {"textcoords": "offset points", "va": "center", "color": FAINT}
            axes.annotate("not applicable", (0, place), (6, 0), **said)


def _draw_costs(figure: Figure, axes: Any, names: Sequence[str], costs: Costs) -> None:
    title_panel(axes, "time of a step", "over that of clip", width=46)
    axes.barh(range(len(names)), [step_ratio(costs, name) for name in names], height=0.55, color=FAINT)
    name_lines(figure, axes, names)


def tables(beds: Rows, by_seed: BySeed, costs: Costs) -> str:
    """The tables of the rivals as Markdown."""
    lines = [*table(beds, costs), "", "Over training seeds alone:", "", *seeds_table(beds, by_seed)]
    for name, rows in beds.items():
        lines += ["", f"On {name}:", *measure_tables(rows)]
    return "\n".join(lines)


def made_anew(page: str, beds: Rows, by_seed: BySeed, costs: Costs) -> str:
    """The page with its tables made anew; all else stays."""
    heads = ["| | the recipe | twice the learning rate | a setting of its own |", "|---|---|---|---|"]
    parts = {
        "rivals": tables(beds, by_seed, costs),
        "ideas": "\n".join(measure_tables(differences(*read_study(IDEAS)), "idea − `{}`")[1:]),
        "trials": "\n".join(heads + trials.lines(trials.trials_of(TRIALS))),
    }
    for name, made in parts.items():
        page = _with_part(page, name, made)
    return page


def _with_part(page: str, name: str, made: str) -> str:
    begin, end = MARKS[name]
    before, rest = page.split(begin)
    return f"{before}{begin}\n\n{made}\n\n{end}{rest.split(end, 1)[1]}"


def main() -> None:
    """Write page and picture; with --beds print the tables of other studies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cost", type=Path, default=COST)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    parser.add_argument("--beds", type=Path, nargs="+", help="folders of studies, at most four")
    options = parser.parse_args()
    names = Counter(folder.name for folder in options.beds or ())
    given = {folder.name if names[folder.name] == 1 else str(folder): folder for folder in options.beds or ()}
    try:
        beds, by_seed = read_beds(given or BEDS)
    except UserError as error:
        parser.error(str(error))
    costs = json.loads(options.cost.read_text("utf-8"))
    if options.beds is None:
        PAGE.write_text(made_anew(PAGE.read_text("utf-8"), beds, by_seed, costs), "utf-8")
    else:
        print(tables(beds, by_seed, costs))
    save_picture(picture(beds, costs), options.picture)


if __name__ == "__main__":
    main()
