"""What the folder of an evaluation says beyond its figures: cautions of the leakage guard, facts of retrieval."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cmcgns.errors import UserError
from cmcgns.evaluation.report.selection import Selection
from cmcgns.evaluation.results import ResultRow
from cmcgns.evaluation.store import ENCODER, cells_of, read_predictions, read_protocol

_FIXED = {"auroc": 0.5, "cnr_similarity": 0.0, "cnr_attention": 0.0}  # whatever the data


@dataclass(frozen=True)
class Kept:
    """By the name of a protocol.

    Attributes:
        cautions: what the leakage guard could not see.
        facts: of retrieval, with what a random ranking gets.
    """

    cautions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def without_cautions(self, rows: Iterable[ResultRow]) -> list[ResultRow]:
        """Rows whose notes do not repeat the cautions, which the page says once."""
        return [replace(row, note=_cut(row.note, self.cautions.get(row.protocol, ()))) for row in rows]

    def chance(self, selection: Selection, row: ResultRow) -> float | None:
        """What guessing gets where it is known; None elsewhere.

        AUROC 0.5 and contrast 0 by definition; the pointing game from the row that holds it; retrieval as kept.
        """
        way, _, name = row.metric.rpartition("_")
        if way == "pointing":
            found = selection.find(row.protocol, selection.encoder_of(row), "pointing_chance")
            return found.value if found else None
        facts = self.facts.get(row.protocol, {})
        level: float | None = facts.get("chance_r", {}).get(name, facts.get("chance_p", {}).get(way))
        return _FIXED.get(row.metric, level)


def read_kept(folder: Path, rows: Iterable[ResultRow]) -> Kept:
    """What an evaluation left in its folder; nothing where the folder is of something else."""
    if not (folder / ENCODER).is_file():
        return Kept()
    cautions, facts = dict[str, Sequence[str]](), dict[str, Mapping[str, Any]]()
    for name, task in {row.protocol: row.task for row in rows}.items():
        try:
            cautions[name] = read_protocol(folder, name).get("cautions", [])
            if task == "retrieval":
                facts[name] = read_predictions(folder, name, cells_of(folder, name)[0]).facts
        except UserError:  # damaged: listed among the failures, and no reason to lose the page
            continue
    return Kept(cautions, facts)


def _cut(note: str, cautions: Sequence[str]) -> str:
    """A note without sentences that it was joined from."""
    for caution in cautions:
        found = next((part for part in (f"{caution}. ", f". {caution}", caution) if part in note), "")
        note = note.replace(found, "", 1)
    return note
