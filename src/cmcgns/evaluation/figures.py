"""From kept predictions to result rows: intervals, means over seeds, subgroups, reliability curves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cmcgns.evaluation.contract import Predictions, Task, least_positives, primary_of, seed_measures
from cmcgns.evaluation.protocols import Cell, EvaluationProtocol
from cmcgns.evaluation.results import (
    ResultRow,
    cells_of,
    message_of,
    protocols_of,
    read_encoder,
    read_predictions,
    read_protocol,
)
from cmcgns.evaluation.subsets import subgroups
from cmcgns.evaluation.tasks import get_task
from cmcgns.metrics.calibration import reliability
from cmcgns.metrics.interval_table import IntervalTable, none_if_undefined
from cmcgns.metrics.intervals import measure_intervals
from cmcgns.metrics.measure import Measure, Measures
from cmcgns.metrics.ranking import BoolArray, FloatArray

PRIMARY = "primary: "  # what a note about it begins with


@dataclass(frozen=True)
class ReliabilityCurve:
    """Predicted probabilities of all classes in bins, beside what was observed.

    Attributes:
        protocol: name in tables.
        fraction: per cent of the labels; None for what learns nothing.
        predicted: (K,) mean predicted probability of each bin that is not empty.
        observed: (K,) share of positives in it.
        count: (K,) predictions in it.
    """

    protocol: str
    fraction: float | None
    predicted: tuple[float, ...]
    observed: tuple[float, ...]
    count: tuple[int, ...]


def reliability_of(folder: Path, names: Iterable[str]) -> list[ReliabilityCurve]:
    """One curve a protocol that predicts probabilities: all classes together, most labels, first seed.

    Classes that were not learnt are left out: what is predicted for them says nothing.
    """
    curves = []
    for name in names:
        cell = max(cells_of(folder, name), key=lambda cell: cell.fraction or 0)
        arrays = read_predictions(folder, name, cell).arrays
        if "probabilities" not in arrays:
            continue
        labels = np.where(arrays["counted"], arrays["labels"], np.nan)  # as the figures of calibration do
        found = reliability(arrays["probabilities"].ravel(), labels.ravel())
        curves.append(ReliabilityCurve(name, cell.fraction, *(tuple(each.tolist()) for each in found)))
    return curves


@dataclass(frozen=True)
class _Seeds:
    """All seeds of one protocol and fraction."""

    template: ResultRow
    cells: tuple[Cell, ...]
    predictions: tuple[Predictions, ...]
    measures: tuple[Measures, ...]
    primary: str
    task: Task
    least: int

    def within(self, mask: BoolArray) -> _Seeds:
        """The same of a subgroup, in whose means those classes count that it has enough patients of."""
        return replace(self, measures=tuple(seed_measures(self.task, self.predictions, self.least, mask)))


def figures_of(
    folder: Path, failures: list[tuple[str, str, str]] | None = None, resamples: int = 2000
) -> list[ResultRow]:
    """Every figure of every finished cell: per seed, mean over seeds, subgroups of the mean.

    Args:
        folder: of `cmcgns evaluate`.
        failures: protocol, `figures` and message of each whose predictions are damaged or undefined are added to it,
            which does not lose the others; None: such a protocol raises.
        resamples: of the bootstrap.

    Raises:
        UserError: no such folder, or, without `failures`, a damaged file in it.
    """
    rows: list[ResultRow] = []
    for name in protocols_of(folder):
        try:
            rows += _of_protocol(folder, name, resamples)
        except Exception as error:
            if failures is None:
                raise
            failures.append((name, "figures", message_of(error, f"{name}: figures")))
    return rows


def _of_protocol(folder: Path, name: str, resamples: int) -> list[ResultRow]:
    rows: list[ResultRow] = []
    record = read_protocol(folder, name)
    for _, cells in groupby(cells_of(folder, name), key=lambda cell: cell.fraction):
        judged = _read(folder, name, record, tuple(cells))
        rows += _overall(judged, resamples)
        rows += _of_subgroups(judged, record["test"], resamples)
    return rows


def _read(folder: Path, name: str, record: dict[str, Any], cells: tuple[Cell, ...]) -> _Seeds:
    protocol = EvaluationProtocol.model_validate(record["settings"])
    predictions = tuple(read_predictions(folder, name, cell) for cell in cells)
    task, least = get_task(protocol.task), least_positives(record["settings"])
    measures = tuple(seed_measures(task, predictions, least))
    encoder = read_encoder(folder)
    template = ResultRow(
        protocol=name,
        task=protocol.task,
        dataset=record["dataset"],
        split=record["split_sha256"],
        encoder=encoder["encoder"],
        encoder_sha256=encoder["sha256"],
        metric="",
        n=len(predictions[0].rows),
        patients=len(set(predictions[0].patients.tolist())),
        fraction=cells[0].fraction,
        leakage=record["leakage"],
        note=". ".join(record["cautions"]),
    )
    metrics = list(dict.fromkeys(measure.metric for measure in measures[0].of))
    primary = primary_of(protocol.primary, metrics)
    if protocol.primary not in ("", primary):  # the predictions are worth hours, and have other figures
        known = f"{PRIMARY}{protocol.primary} was not judged; of task {protocol.task} there are {', '.join(metrics)}"
        template = replace(template, note=". ".join(part for part in (known, template.note) if part))
    return _Seeds(template, cells, predictions, measures, primary, task, least)


def _overall(judged: _Seeds, resamples: int) -> Iterator[ResultRow]:
    found = measure_intervals(judged.measures, judged.predictions[0].patients, resamples=resamples)
    yield from _rows(judged, found.mean, found.sd)
    if len(judged.cells) > 1:
        for cell, table in zip(judged.cells, found.seeds, strict=True):
            template = replace(judged.template, seed=cell.seed)
            yield from _rows(replace(judged, template=template, cells=(cell,)), table)


def _of_subgroups(judged: _Seeds, about: dict[str, list[Any]], resamples: int) -> Iterator[ResultRow]:
    """The mean figures (no classes) of each subgroup that is large enough."""
    places = {name: place for place, name in enumerate(about["rows"])}
    order = [places[str(row).partition("\t")[0]] for row in judged.predictions[0].rows]
    frame = pd.DataFrame({name: pd.Series(about[name], dtype=object) for name in ("sex", "age", "view")}).iloc[order]
    found, too_small = subgroups(frame.reset_index(drop=True), judged.predictions[0].patients)
    for name, mask in found:
        part = judged.within(mask)
        intervals = measure_intervals(part.measures, part.predictions[0].patients, mask, resamples)
        template = replace(part.template, group=name, n=intervals.mean.rows, patients=intervals.mean.patients)
        rows = _rows(replace(part, template=template), intervals.mean, intervals.sd)
        yield from (row for row in rows if not row.label)
    for text in too_small:
        yield replace(judged.template, group=text, metric=judged.primary, primary=True, note="too small a subgroup")


def _rows(judged: _Seeds, table: IntervalTable, sd: FloatArray | None = None) -> Iterator[ResultRow]:
    spreads = none_if_undefined(np.full(len(table.of), np.nan) if sd is None else sd)
    columns = zip(table.of, table.records(), table.reasons, table.support.tolist(), spreads, strict=True)
    for measure, (value, low, high, used), reason, support, spread in columns:
        said = judged.measures[0].notes.get(measure, "")
        template = _with_counts(judged.template, judged.predictions[0], measure)
        yield replace(
            template,
            metric=measure.metric,
            label=measure.label,
            primary=measure.metric == judged.primary and not measure.label,
            value=value,
            low=low,
            high=high,
            resamples=used,
            seeds=len(judged.cells),
            sd=spread,
            support=support,
            note=". ".join(part for part in (template.note, said, reason) if part),
        )


def _with_counts(template: ResultRow, predictions: Predictions, measure: Measure) -> ResultRow:
    """For a figure of one class how many rows it was judged on; other figures are about all rows.

    Labels are either (n, C) 1, 0 or NaN with the classes' names beside them, or (n,) the class that a row is about.
    """
    arrays = predictions.arrays
    if not measure.label or "labels" not in arrays:
        return template
    labels, positives = arrays["labels"], None
    if "label_names" in arrays:
        column = labels[:, arrays["label_names"].tolist().index(measure.label)]
        counted, positives = ~np.isnan(column), int((column == 1).sum())
    else:
        counted = (labels == measure.label) & ~np.isnan(arrays[measure.metric])
    patients = len(set(predictions.patients[counted].tolist()))
    return replace(template, n=int(counted.sum()), patients=patients, positives=positives)
