"""The best trial of every method of a tuning study: the largest plain mean of its measures.

    PYTHONPATH=src python benchmarks/trials.py benchmarks/results/rivals-tuning

Cells are named METHOD-TRIAL. A measure that does not apply to a method counts in none of its trials. A method is
judged only when all of its trials are done.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import mean

from cmcgns.study.load import load_plan
from cmcgns.study.run import read_results
from cmcgns.study.table import TableRow, table_rows

Trials = dict[str, dict[str, list[TableRow]]]
"""Rows of every trial, by method and by trial."""


def trials_of(folder: Path) -> Trials:
    """What a folder with `study.yaml` and `results/` has, a row for each measure that applies."""
    plan = load_plan(str(folder / "study.yaml"))
    found: Trials = defaultdict(lambda: defaultdict(list))
    for row in table_rows(plan, read_results(plan, folder)):
        if row.applies:
            method, _, trial = row.cell.rpartition("-")
            found[method][trial].append(row)
    return found


def means(trials: dict[str, list[TableRow]]) -> dict[str, float]:
    """Plain mean of the measures of every trial; empty while one is missing."""
    values = {trial: [row.value for row in rows] for trial, rows in trials.items()}
    if any(value is None for each in values.values() for value in each):
        return {}
    return {trial: mean(value for value in each if value is not None) for trial, each in values.items()}


def main() -> None:
    """Print a row for each method: its trials' means, the best one set off."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    for method, trials in trials_of(parser.parse_args().folder).items():
        found = means(trials)
        best = max(found, key=found.__getitem__, default="")
        values = [f"{found[trial]:.3f}" if found else "–" for trial in trials]
        said = [f"**{value}**" if trial == best else value for trial, value in zip(trials, values, strict=True)]
        print(f"| `{method}` | {' | '.join(said)} |")


if __name__ == "__main__":
    main()
