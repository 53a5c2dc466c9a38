"""From two evaluations to the few figures that a run's page shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from cmcgns.evaluation.compare import Comparison
from cmcgns.evaluation.results import ResultRow
from cmcgns.inspect.measures import MEASURES


def summarise_judgements(
    pretrained: Sequence[ResultRow], random: Sequence[ResultRow], comparison: Comparison, chance: Mapping[str, float]
) -> dict[str, Any]:
    """What :func:`cmcgns.inspect.report.write_report` shows of two judged encoders.

    Args:
        pretrained: result rows.
        random: of the randomly initialised twin.
        comparison: of the two.
        chance: what guessing gives, by key, where it depends on the data.
    """
    guesses = {measure.key: measure.chance for measure in MEASURES} | dict(chance)
    for row in pretrained:
        if row.metric == "pointing_chance" and not row.label and not row.group:
            guesses["grounding_pointing"] = row.value
    return {
        "chance": guesses,
        "pretrained": _summary(pretrained),
        "random": _summary(random),
        "difference": {
            measure.key: {"value": row.difference, "low": row.low, "high": row.high}
            for measure in MEASURES
            for row in comparison.rows
            if row.metric == measure.metric and not row.label and _task(row.protocol, pretrained) == measure.task
        },
    }


def _summary(rows: Sequence[ResultRow]) -> dict[str, Any]:
    overall = [row for row in rows if row.seed is None and not row.group]
    summary: dict[str, Any] = {"per_label": _per_label(overall)}
    for measure in MEASURES:
        for row in overall:
            if (row.task, row.metric, row.label) == (measure.task, measure.metric, ""):
                figures = asdict(row)
                summary[measure.key] = {name: figures[name] for name in ("value", "low", "high", "n", "sd")}
    return summary


def _per_label(rows: Sequence[ResultRow]) -> dict[str, dict[str, float | None]]:
    found: dict[str, dict[str, float | None]] = {}
    for row in rows:
        if row.label and row.metric == "auroc" and row.task in ("linear", "zero_shot"):
            found.setdefault(row.label, {})[row.task] = row.value
    return found


def _task(protocol: str, rows: Sequence[ResultRow]) -> str:
    return next((row.task for row in rows if row.protocol == protocol), "")
