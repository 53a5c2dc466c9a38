"""The table of a study, from its result files alone: means over seeds, and differences to one or more baselines.

A difference is paired twice: by training seed, and by resample of the test patients. Its interval is of percentiles:
seeds are drawn with replacement, in every way there is, and the mean of their differences on a resample of the
patients is one value. So it says how the difference would vary with other patients and other seeds; with few seeds it
says too little of the latter (tests/study/test_study_coverage.py).

A last row may summarise several measures. A difference in one of them is divided by that measure's standard deviation
between training seeds, pooled over all cells, and its sign is such that more is better: 1 says "better by as much as
trainings of one recipe commonly differ". The mean is over the measures that both cells have; its interval is of the
same draws of patients and seeds in all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from cmcgns.metrics.interval_table import NARROW, NO_VARIATION, leaves_out_zero
from cmcgns.metrics.measure import LEAST
from cmcgns.metrics.ranking import FloatArray
from cmcgns.metrics.resamples import percentile_ends
from cmcgns.reporting.evaluation.names import lower_is_better
from cmcgns.study.plan import Plan
from cmcgns.study.results import Figure, Result
from cmcgns.study.settings import SUMMARY, MeasureSettings

BySeed = Mapping[int, Figure]
"""A cell's figures of one measure."""

_Difference = tuple[float | None, float | None, float | None, str]
"""Mean difference, the ends of its interval, and what is to be known of them."""

_NO_DIFFERENCE: _Difference = (None, None, None, "")

_ROUNDING = 1e-12
_NOT_KEPT = (
    "results from before the measure was asked for have no resamples of it, or others have another number of them: "
    "delete them, and `cmcgns study` makes them again from the predictions"
)
FEW_SEEDS = 5
"""Seeds below which an interval is called too narrow for other seeds."""
_MOST_OF = 0.95  # of the resamples; rare findings are absent from some
_ALL_WAYS = 5  # seeds up to which all ways to draw them are taken, 3,125


@dataclass(frozen=True)
class TableRow:
    """One cell of the study in one measure, beside one baseline.

    Attributes:
        cell: its name.
        baseline: name of the cell that it is compared with.
        title: heading of the measure.
        judge: entry of the study.
        measure: name of the figure.
        fraction: per cent of the training patients; None for what learns nothing.
        seeds: behind the value.
        value: mean over seeds; None where there is none.
        sd: standard deviation over seeds (divisor S - 1); None for fewer than two.
        shared: seeds that the baseline has too.
        difference: mean over these of cell minus baseline, or as the study states it; None of the baseline itself.
        low: lower end of its 95 % interval over patients and seeds; None where there is none.
        high: upper end.
        clear: whether the interval leaves out 0.
        note: why there is no interval, or a narrow one.
        applies: whether the cell can be judged by the measure at all.
    """

    cell: str
    baseline: str
    title: str
    judge: str
    measure: str
    fraction: float | None
    seeds: int
    value: float | None
    sd: float | None
    shared: int
    difference: float | None
    low: float | None
    high: float | None
    clear: bool
    note: str
    applies: bool = True


def difference_interval(differences: FloatArray) -> tuple[float, float]:
    """95 % percentile interval of a mean difference over patients and seeds.

    A single draw of seeds for each resample would leave the ends to chance: with five seeds and 400 resamples their
    standard deviation from one series of draws to the next was measured as 2 to 4 % of the interval.

    Args:
        differences: (S, R) of each seed on the same R resamples of the patients; NaN where undefined.

    Returns:
        Its ends, over all R resamples and draws of seeds; a resample that leaves a seed undefined is left out. NaN
        where none is defined.
    """
    means = _draws_of_seeds(len(differences)) @ differences / len(differences)
    low, high, _ = percentile_ends(means.reshape(-1, 1))
    return float(low[0]), float(high[0])


@cache
def _draws_of_seeds(seeds: int) -> FloatArray:
    """(W, S) how often each seed is drawn in all S^S ways, or for more seeds in as many ways as five have."""
    if seeds <= _ALL_WAYS:
        drawn = np.indices((seeds,) * seeds).reshape(seeds, -1).T
    else:
        drawn = np.random.default_rng(0).integers(0, seeds, size=(_ALL_WAYS**_ALL_WAYS, seeds))
    return np.asarray((drawn[:, :, None] == np.arange(seeds)).sum(axis=1), dtype=np.float64)


def table_rows(plan: Plan, results: Mapping[tuple[str, int], Result]) -> list[TableRow]:
    """A row for every cell and column, in the order of the study; those without a result have no value.

    Cells that are compared with a further baseline have rows of their own for that; two baselines are compared once.

    Args:
        plan: the study.
        results: by cell and seed, as many as there are.
    """
    first, *further = plan.settings.baseline
    pairs = [(cell.name, first) for cell in plan.cells]
    done = [first]
    for baseline in further:
        done.append(baseline)
        pairs += [(cell.name, baseline) for cell in plan.cells if cell.name not in done]
    rows = [_row(plan, results, cell, baseline, column) for column in plan.columns for cell, baseline in pairs]
    return rows + (_summary(plan, results, pairs) if plan.settings.summary else [])


def _summary(
    plan: Plan, results: Mapping[tuple[str, int], Result], pairs: Sequence[tuple[str, str]]
) -> list[TableRow]:
    """Rows of the mean of standardised differences."""
    figures, units = _to_summarise(plan, results)
    rows = []
    for cell, baseline in pairs:
        names = plan.operands(cell, baseline)
        one, other = (figures[name] for name in names)
        seeds, found = _standardised(one, other, units) if cell != baseline else (0, _NO_DIFFERENCE)
        difference, low, high, note = found
        columns = [_column(plan, title) for title in units] if seeds else []
        lacking = [_lacking(plan, results, name, column) for name in names for column in columns]
        rows.append(
            TableRow(
                cell, baseline, SUMMARY, "", "", None, seeds, None, None, seeds, difference, low, high,
                leaves_out_zero(low, high), _joined(note, *lacking),
            )
        )  # fmt: skip
    return rows


def standardised_by_seed(
    plan: Plan, results: Mapping[tuple[str, int], Result], cell: str, baseline: str
) -> dict[int, float]:
    """Mean of the standardised differences of each seed that two cells share, whose mean the summary's row is."""
    figures, units = _to_summarise(plan, results)
    one, other = (figures[name] for name in plan.operands(cell, baseline))
    titles, seeds = _comparable(one, other, units)
    if not seeds:
        return {}
    return dict(zip(seeds, _average(one, other, units, titles, seeds, _value).tolist(), strict=True))


def _to_summarise(
    plan: Plan, results: Mapping[tuple[str, int], Result]
) -> tuple[dict[str, dict[str, BySeed]], dict[str, float]]:
    """Figures by cell and heading, and by heading what a difference is divided by; negative where less is better."""
    columns = [_column(plan, title) for title in plan.settings.summary]
    figures: dict[str, dict[str, BySeed]] = {
        cell.name: {column.title: _figures(plan, results, cell.name, column) for column in columns}
        for cell in plan.cells
    }
    units = {
        column.title: _spread_of_seeds([figures[cell.name][column.title] for cell in plan.cells])
        * (-1 if lower_is_better(column.measure) else 1)
        for column in columns
    }
    return figures, units


def _column(plan: Plan, title: str) -> MeasureSettings:
    return next(column for column in plan.columns if column.title == title)


_NO_SPREAD = "needs a cell with two seeds, whose standard deviation is the unit"


def _spread_of_seeds(cells: Sequence[BySeed]) -> float:
    """Standard deviation between seeds, pooled over the cells that have two or more; NaN where none has."""
    values = [[figure.value for figure in cell.values() if figure.value is not None] for cell in cells]
    squares = sum(float(np.var(each, ddof=1)) * (len(each) - 1) for each in values if len(each) > 1)
    freedom = sum(len(each) - 1 for each in values if len(each) > 1)
    return float(np.sqrt(squares / freedom)) if freedom else float("nan")


def _standardised(
    ours: Mapping[str, BySeed], theirs: Mapping[str, BySeed], units: Mapping[str, float]
) -> tuple[int, _Difference]:
    """Number of the shared seeds, and the mean of a cell's standardised differences from another one.

    Args:
        ours: by heading of the measure.
        theirs: of the other cell.
        units: by heading, what a difference is divided by; negative where less is better.
    """
    titles, seeds = _comparable(ours, theirs, units)
    if not seeds:
        return 0, (None, None, None, "" if any(abs(unit) > 0 for unit in units.values()) else _NO_SPREAD)
    values, drawn = (_average(ours, theirs, units, titles, seeds, of) for of in (_value, Figure.drawn))
    judged = [cell[title][seed] for cell in (ours, theirs) for title in titles for seed in seeds]
    low, high, note = _interval(judged, len(seeds), drawn)
    alone = "" if len(titles) == len(units) else f"over {', '.join(titles)} alone"
    return len(seeds), (float(values.mean()), low, high, _joined(alone, note))


def _comparable(
    ours: Mapping[str, BySeed], theirs: Mapping[str, BySeed], units: Mapping[str, float]
) -> tuple[list[str], list[int]]:
    """Measures that both cells have and that vary, and the seeds that both have in all of these."""
    titles = [title for title, unit in units.items() if abs(unit) > 0 and _pairs(ours[title], theirs[title])]
    shared = [set(ours[title]) & set(theirs[title]) for title in titles]
    return titles, sorted(set.intersection(*shared)) if shared else []


def _average(
    ours: Mapping[str, BySeed],
    theirs: Mapping[str, BySeed],
    units: Mapping[str, float],
    titles: Sequence[str],
    seeds: Sequence[int],
    of: Callable[[Figure], FloatArray],
) -> FloatArray:
    """(S, …) mean over the measures of standardised differences of something about a figure, by seed."""
    each = [
        np.stack([(of(ours[title][seed]) - of(theirs[title][seed])) / units[title] for seed in seeds])
        for title in titles
    ]
    mean: FloatArray = np.mean(each, axis=0)
    return mean


def _value(figure: Figure) -> FloatArray:
    return np.array(figure.value, dtype=np.float64)


def _pairs(ours: BySeed, theirs: BySeed) -> bool:
    """Whether two cells were judged on the same rows, with resamples that were kept."""
    shared = [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]
    return (
        bool(shared)
        and all(one.rows == other.rows and one.replicates for one, other in shared)
        and _equally_drawn(figure for pair in shared for figure in pair)
    )


def _equally_drawn(figures: Iterable[Figure]) -> bool:
    """Whether all have as many resamples."""
    return len({len(figure.replicates) for figure in figures}) == 1


def _row(
    plan: Plan, results: Mapping[tuple[str, int], Result], cell: str, baseline: str, column: MeasureSettings
) -> TableRow:
    ours, theirs = (_figures(plan, results, name, column) for name in (cell, baseline))
    values = [figure.value for figure in ours.values() if figure.value is not None]
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    value = float(np.mean(values)) if values else None
    shared = [seed for seed in ours if seed in theirs] if cell != baseline else []
    by_cell = {cell: ours, baseline: theirs}
    first, second = (by_cell[name] for name in plan.operands(cell, baseline))
    pairs = [(first[seed], second[seed]) for seed in shared]
    difference, low, high, note = _difference(pairs)
    if cell != baseline and ours and theirs and not shared:
        note = f"no difference: no seed that {baseline} has too"
    lacking, applies = _lacking(plan, results, cell, column), plan.applies(cell, column.protocol)
    return TableRow(
        cell, baseline, column.title, column.protocol, column.measure, column.fraction, len(values), value, sd,
        len(pairs), difference, low, high, leaves_out_zero(low, high), _joined(note, lacking), applies,
    )  # fmt: skip


def _lacking(plan: Plan, results: Mapping[tuple[str, int], Result], cell: str, column: MeasureSettings) -> str:
    """Which seeds of a cell have no such figure although others have, as text; empty if none, or none has it."""
    there = _figures(plan, results, cell, column)
    seeds = [str(seed) for seed in plan.seeds if (cell, seed) in results and seed not in there]
    return f"{column.title} of {cell} is undefined in seed {', '.join(seeds)}" if seeds and there else ""


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def _figures(
    plan: Plan, results: Mapping[tuple[str, int], Result], cell: str, column: MeasureSettings
) -> dict[int, Figure]:
    """The defined figures of one cell by seed."""
    wanted = (column.protocol, column.fraction, column.measure)
    found = {
        seed: figure
        for seed in plan.seeds
        if (cell, seed) in results
        for figure in results[cell, seed].figures
        if (figure.judge, figure.fraction, figure.measure) == wanted
    }
    return {seed: figure for seed, figure in found.items() if figure.value is not None}


def _difference(pairs: Sequence[tuple[Figure, Figure]]) -> _Difference:
    if not pairs:
        return _NO_DIFFERENCE
    if any(one.rows != other.rows for one, other in pairs):
        return None, None, None, "no difference: judged on other test rows, so nothing pairs"
    difference = float(np.mean([(one.value or 0.0) - (other.value or 0.0) for one, other in pairs]))
    figures = [figure for pair in pairs for figure in pair]
    kept = _equally_drawn(figures) and all(figure.replicates for figure in figures)
    drawn = np.stack([one.drawn() - other.drawn() for one, other in pairs]) if kept else None
    return difference, *_interval(figures, len(pairs), drawn)


def _interval(
    figures: Sequence[Figure], seeds: int, drawn: FloatArray | None
) -> tuple[float | None, float | None, str]:
    """Ends of a difference's interval, and what is to be known of them or why there are none.

    Args:
        figures: all that the difference is made from.
        seeds: S, of the training.
        drawn: (S, R) of each seed on every resample of the patients; None where they are not kept.
    """
    support = min(figure.support for figure in figures)
    if support < LEAST:
        return None, None, f"no interval: it rests on {support} patients, at least {LEAST} are needed"
    if drawn is None:
        return None, None, f"no interval: {_NOT_KEPT}"
    low, high = difference_interval(drawn)
    if not high - low > _ROUNDING:
        return None, None, NO_VARIATION
    few = [f"only {seeds} seeds"] if 1 < seeds < FEW_SEEDS else []
    few += [f"only {support} patients"] if any(figure.few for figure in figures) else []
    said = ["interval over patients alone: a single seed"] if seeds == 1 else []
    said += [f"{NARROW}: {', '.join(few)}"] if few else []
    defined = int((~np.isnan(drawn)).all(axis=0).sum())
    if defined < _MOST_OF * drawn.shape[1]:
        said.append(f"only {defined} of {drawn.shape[1]} resamples are defined")
    return low, high, "; ".join(said)
