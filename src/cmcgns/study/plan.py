"""What a study comes to: runs, protocols, columns of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cmcgns.common.errors import UserError, did_you_mean, shortened
from cmcgns.evaluation.protocols import EvaluationProtocol
from cmcgns.objectives.objective import read_settings
from cmcgns.settings.config import Recipe
from cmcgns.settings.recipe import with_free_settings
from cmcgns.study.results import job_name
from cmcgns.study.settings import CellSettings, JudgeSettings, MeasureSettings, StudySettings


@dataclass(frozen=True)
class Job:
    """One run of a study.

    Attributes:
        cell: its name.
        seed: of the training.
        recipe: resolved, this seed in it.
    """

    cell: str
    seed: int
    recipe: Recipe

    @property
    def name(self) -> str:
        """Of its result, without the ending."""
        return job_name(self.cell, self.seed)

    @property
    def decisive(self) -> dict[str, Any]:
        """The recipe, in which settings that change nothing of what is learned are as by default, its name too."""
        return read_settings(with_free_settings(self.recipe, Recipe()).model_copy(update={"name": Recipe().name}))


@dataclass(frozen=True)
class Judging:
    """A protocol that every cell is judged by.

    Attributes:
        name: what measures call it.
        protocol: with the fractions and seeds that the study asks for.
        entry: as the study states it.
    """

    name: str
    protocol: EvaluationProtocol
    entry: JudgeSettings


@dataclass(frozen=True)
class Plan:
    """A study that can be carried out.

    Attributes:
        settings: as the YAML states them.
        cells: with their overrides, in the order of the table.
        jobs: all cells of the first seed, then those of the next one that have it.
        judging: protocols.
        columns: measures of the table, each with its fraction and its heading.
    """

    settings: StudySettings
    cells: tuple[CellSettings, ...]
    jobs: tuple[Job, ...]
    judging: tuple[Judging, ...]
    columns: tuple[MeasureSettings, ...]

    @property
    def seeds(self) -> list[int]:
        """Of the training, of all cells, in the order of the jobs."""
        return list(dict.fromkeys(job.seed for job in self.jobs))

    def operands(self, cell: str, baseline: str) -> tuple[str, str]:
        """The two cells of a difference, the second is taken from the first."""
        return (baseline, cell) if self.settings.difference == "baseline - cell" else (cell, baseline)

    def applies(self, cell: str, judging: str) -> bool:
        """Whether a cell is judged by an entry of `judge`."""
        return judging not in next(each.without for each in self.cells if each.name == cell)

    def judging_of(self, cell: str) -> list[Judging]:
        """The protocols that apply to a cell."""
        return [each for each in self.judging if self.applies(cell, each.name)]

    def protocols_of(self, cell: str) -> list[list[Any]]:
        """Of a cell's protocols what decides a result; with the data, where it is judged on other ones."""
        about = ((each.name, each.protocol, each.entry.data) for each in self.judging_of(cell))
        return [
            [name, each.sha256, each.fractions, each.seeds, *([data] if data else [])] for name, each, data in about
        ]

    def resampled(self, judging: Judging) -> set[tuple[float | None, str]]:
        """Fraction and name of the figures whose resamples are kept: the table's, and the protocol's main one."""
        protocol = judging.protocol
        main = protocol.primary or protocol.task_settings.figures[0]
        fractions: list[float | None] = [*protocol.fractions] if protocol.learns else [None]
        shown = {(column.fraction, column.measure) for column in self.columns if column.protocol == judging.name}
        return shown | {(fraction, main) for fraction in fractions}

    def chosen(self, cells: Sequence[str] = (), seeds: Sequence[int] = ()) -> list[Job]:
        """Jobs of some cells and seeds; by default all.

        Raises:
            UserError: a cell or a seed that the study does not have.
        """
        names = [cell.name for cell in self.cells]
        for name in cells:
            refuse_unknown("--cells", name, names)
        for seed in seeds:
            if seed not in self.seeds:
                raise UserError(f"--seeds {seed}: the study has {', '.join(map(str, self.seeds))}")
        return [job for job in self.jobs if job.cell in (cells or names) and job.seed in (seeds or [job.seed])]


def refuse_unknown(key: str, name: str, known: Sequence[str], where: str = "") -> None:
    """Raise where a name, which a `key` of some place states, is none of those that are known."""
    if name not in known:
        said = f"{key}: there is no {shortened(name)}.{did_you_mean(name, known)} Known: {', '.join(known)}"
        raise UserError(f"{where}: {said}" if where else said)
