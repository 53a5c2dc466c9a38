"""One row over several measures: the mean of their standardised differences.

A difference in one measure is divided by that measure's standard deviation between training seeds, pooled over
all cells, and its sign is such that more is better. So 1 says "better by as much as trainings of one recipe
commonly differ". The mean is over the measures that both cells have; its interval is of the same draws of patients
and seeds in all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from cmcgns.metrics.ranking import FloatArray
from cmcgns.study.results import Figure

BySeed = Mapping[int, Figure]
"""A cell's figures of one measure."""


def spread_of_seeds(cells: Sequence[BySeed]) -> float:
    """Standard deviation between seeds, pooled over the cells that have two or more; NaN where none has."""
    values = [[figure.value for figure in cell.values() if figure.value is not None] for cell in cells]
    squares = sum(float(np.var(each, ddof=1)) * (len(each) - 1) for each in values if len(each) > 1)
    freedom = sum(len(each) - 1 for each in values if len(each) > 1)
    return float(np.sqrt(squares / freedom)) if freedom else float("nan")


def mean_standardised(
    ours: Mapping[str, BySeed], theirs: Mapping[str, BySeed], units: Mapping[str, float]
) -> tuple[list[str], float, FloatArray] | None:
    """Mean of a cell's standardised differences from another one.

    Args:
        ours: by heading of the measure.
        theirs: of the other cell.
        units: by heading, what a difference is divided by; negative where less is better.

    Returns:
        Headings that took part, the mean over them and the shared seeds, and (S, R) of each seed on every resample;
        None where nothing can be compared.
    """
    titles = [title for title, unit in units.items() if abs(unit) > 0 and _pairs(ours[title], theirs[title])]
    shared = [set(ours[title]) & set(theirs[title]) for title in titles]
    if not titles or not (seeds := sorted(set.intersection(*shared))):
        return None

    def average(of: Callable[[Figure], FloatArray]) -> FloatArray:
        each = [
            np.stack([(of(ours[title][seed]) - of(theirs[title][seed])) / units[title] for seed in seeds])
            for title in titles
        ]
        mean: FloatArray = np.mean(each, axis=0)
        return mean

    values = average(lambda figure: np.array(figure.value, dtype=np.float64))
    return titles, float(values.mean()), average(Figure.drawn)


def _pairs(ours: BySeed, theirs: BySeed) -> bool:
    """Whether two cells were judged on the same rows, with resamples that were kept."""
    shared = [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]
    return bool(shared) and all(
        one.rows == other.rows and one.replicates and other.replicates for one, other in shared
    )
