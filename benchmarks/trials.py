"""The best trial of every method of a tuning study: the largest plain mean of its measures.

    PYTHONPATH=src python benchmarks/trials.py benchmarks/results/rivals-tuning

Cells are named METHOD-TRIAL. A measure that does not apply to a method counts in none of its trials. A method is
judged only when all of its trials are done. The summary of a study, which has one, counts in none.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import mean

from cmcgns.study.load import load_plan
from cmcgns.study.run import kept_results
from cmcgns.study.settings import SUMMARY
from cmcgns.study.table import TableRow, table_rows

Trials = dict[str, dict[str, list[TableRow]]]
"""Rows of every trial, by method and by trial."""


def trials_of(folder: Path) -> Trials:
    """What a folder with `study.yaml` and `results/` has, a row for each measure that applies."""
    plan = load_plan(str(folder / "study.yaml"))
    found: Trials = defaultdict(lambda: defaultdict(list))
    for row in table_rows(plan, kept_results(plan, folder)):
        if row.applies and row.title != SUMMARY:
            method, _, trial = row.cell.rpartition("-")
            found[method][trial].append(row)
    return found


def means(trials: dict[str, list[TableRow]]) -> dict[str, float]:
    """Plain mean of the measures of every trial; empty while one is missing."""
    values = {trial: [row.value for row in rows] for trial, rows in trials.items()}
    if any(value is None for each in values.values() for value in each):
        return {}
    return {trial: mean(value for value in each if value is not None) for trial, each in values.items()}


def best(trials: dict[str, list[TableRow]]) -> str:
    """Name of the trial with the largest mean; empty while one is missing."""
    found = means(trials)
    return max(found, key=found.__getitem__, default="")


def lines(trials: Trials) -> list[str]:
    """A row of Markdown for each method: its trials' means, the best one set off."""
    rows = []
    for method, own in trials.items():
        found, chosen = means(own), best(own)
        values = {trial: f"{found[trial]:.3f}" if found else "–" for trial in own}
        said = [f"**{value}**" if trial == chosen else value for trial, value in values.items()]
        rows.append(f"| `{method}` | {' | '.join(said)} |")
    return rows


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    print("\n".join(lines(trials_of(parser.parse_args().folder))))


if __name__ == "__main__":
    main()
