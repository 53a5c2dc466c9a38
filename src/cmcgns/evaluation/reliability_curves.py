"""Reliability curves of kept predictions, for the report."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cmcgns.evaluation.calibration import reliability
from cmcgns.evaluation.report import ReliabilityCurve
from cmcgns.evaluation.store import cells_of, protocols_of, read_encoder, read_predictions


def reliability_of(folder: Path, names: Iterable[str] | None = None) -> list[ReliabilityCurve]:
    """One curve a protocol that predicts probabilities: all classes together, most labels, first seed.

    Args:
        folder: of `cmcgns evaluate`.
        names: of protocols; by default all with a finished cell.
    """
    curves = []
    for name in protocols_of(folder) if names is None else names:
        most = max(cell.fraction or 0 for cell in cells_of(folder, name))
        cell = next(cell for cell in cells_of(folder, name) if (cell.fraction or 0) == most)
        arrays = read_predictions(folder, name, cell).arrays
        if "probabilities" not in arrays:
            continue
        found = reliability(arrays["probabilities"].reshape(-1, 1), arrays["labels"].reshape(-1, 1))
        used = found.rows[0] > 0
        values = (tuple(row[0][used].tolist()) for row in (found.probability, found.positive, found.rows))
        curves.append(ReliabilityCurve(name, read_encoder(folder)["encoder"], "", cell.fraction, *values))
    return curves
