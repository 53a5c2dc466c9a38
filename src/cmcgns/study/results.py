"""The result of one cell and seed: one small file, which the table is made from, without the run.

OUT/results/full-seed-0.json    what it was made from, every figure over all classes, and resamples of the main ones

400 resamples of one figure take 4 kB. With those of all figures a result of ten protocols would be 200 kB long, too
much to be kept with a project, so only the table's figures and the main one of each protocol have theirs.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from cmcgns.common.files import write_text
from cmcgns.common.stored import naming_damage
from cmcgns.evaluation.contract import least_positives, seed_measures
from cmcgns.evaluation.protocols import Cell
from cmcgns.evaluation.results import cells_of, read_predictions, read_protocol
from cmcgns.evaluation.tasks import get_task
from cmcgns.metrics.interval_table import DIFFERENCE, is_narrow, none_if_undefined
from cmcgns.metrics.ranking import FloatArray
from cmcgns.metrics.resamples import resample
from cmcgns.objectives.objective import find_objective, without_unread
from cmcgns.settings.config import ObjectiveSettings
from cmcgns.settings.recipe import completed, differences

RESULTS = "results"
RESAMPLES = 400
_DIGITS = 5  # of a resample


@dataclass(frozen=True)
class Figure:
    """A figure of one cell and seed, mean over the draws of the labels.

    Attributes:
        judge: name of the study's entry.
        fraction: per cent of the training patients; None for what learns nothing.
        measure: such as `auroc`.
        value: None where it is undefined.
        support: patients of the scarcest kind that it rests on.
        rows: hash of the test rows and patients: only resamples of the same ones are paired.
        replicates: R values on the same resamples of the patients in every cell; None where undefined, and none at
            all of a single patient, or where they are not kept.
        few: whether a difference of it rests on so few patients of some kind that its interval is too narrow.
    """

    judge: str
    fraction: float | None
    measure: str
    value: float | None
    support: int
    rows: str
    replicates: list[float | None]
    few: bool = False

    def drawn(self) -> FloatArray:
        """(R,) resamples, NaN where undefined."""
        return np.array(self.replicates, dtype=np.float64)


@dataclass(frozen=True)
class Origin:
    """Everything that decides a result.

    Attributes:
        recipe: resolved, as a mapping.
        data: fingerprint of the tables.
        protocols: their names, hashes, fractions and seeds.
    """

    recipe: dict[str, Any]
    data: str
    protocols: list[Annotated[list[Any], Field(min_length=1)]]

    def settings_that_differ(self, recipe: dict[str, Any]) -> list[str]:
        """What other settings a recipe has, as text; empty if there are none.

        A setting that the recipe lacks, because it is younger than the result, was as it is when nobody states it.
        One that the objective does not read, and the recipe's name, count for nothing.
        """
        before = completed(self.recipe)
        own, other = before["objective"], recipe["objective"]
        if own["name"] == other["name"]:
            options = find_objective(ObjectiveSettings(name=own["name"])).Options().model_dump(mode="json")
            before["objective"] = without_unread(own) | {"options": options | own["options"]}
        return list(differences(before | {"name": recipe["name"]}, recipe))


@dataclass(frozen=True)
class Result:
    """What is left of one cell and seed.

    Attributes:
        cell: its name.
        seed: of the training.
        made_from: all that decides it.
        seconds: of training, by the clock on the wall; of parts that were killed nothing is known.
        parameters: of encoders and objective.
        figures: all over all classes.
    """

    cell: str
    seed: int
    made_from: Origin
    seconds: float
    parameters: int
    figures: list[Figure]


_RESULT = TypeAdapter(Result)


def job_name(cell: str, seed: int) -> str:
    """What files of a cell and seed are called."""
    return f"{cell}-seed-{seed}"


def result_file(out: Path, name: str) -> Path:
    """Where the result of a job of this name is."""
    return out / RESULTS / f"{name}.json"


def write_result(file: Path, result: Result) -> None:
    """Write JSON with a line for each figure; a reader never sees half of it.

    Raises:
        UserError: the disk refuses the file.
    """
    write = partial(json.dumps, ensure_ascii=False, allow_nan=False)
    content = asdict(result)
    figures = ",\n".join(map(write, content.pop("figures")))
    write_text(file, f'{write(content)[:-1]}, "figures": [\n{figures}\n]}}\n')


def read_result(file: Path) -> Result:
    """A result.

    Raises:
        UserError: it is missing or damaged, or of another cell or seed than its name says.
    """
    with naming_damage(file, "delete it, and `cmcgns study` makes it again"):
        try:
            result = _RESULT.validate_json(file.read_bytes(), strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'all of it'}: {first['msg']}") from None
        if file.stem != job_name(result.cell, result.seed):
            raise ValueError(f"it is the result of {job_name(result.cell, result.seed)}")
        _check_figures(result.figures)
        return result


def _check_figures(figures: Sequence[Figure]) -> None:
    """Raise where figures could not be told apart, paired or averaged."""
    if not figures:
        raise ValueError("it has no figure")
    named = Counter((each.judge, each.fraction, each.measure) for each in figures)
    for (judge, fraction, measure), times in named.items():
        if times > 1:
            share = f" at {fraction:g} %" if fraction is not None else ""
            raise ValueError(f"{judge} {measure}{share} is there {times} times")
    for each in figures:
        if any(number is not None and not math.isfinite(number) for number in (each.value, *each.replicates)):
            raise ValueError(f"{each.judge} {each.measure}: not a number, which would be null")
    if len({len(each.replicates) for each in figures if each.replicates}) > 1:
        raise ValueError("its figures have different numbers of resamples")


def read_figures(
    judged: Path,
    protocol: str,
    judge: str,
    kept: Container[tuple[float | None, str]] | None = None,
) -> Iterator[Figure]:
    """Every figure over all classes that the last call of `cmcgns evaluate` asked a folder for, of a protocol.

    Cells of fractions and seeds that an earlier call asked for are not among them. The draws depend on the ids of the
    test patients alone, so those of all cells are the same.

    Args:
        judged: the folder.
        protocol: name in its tables.
        judge: what the study calls it.
        kept: fraction and name of the figures that come with their resamples; None: all.
    """
    settings = read_protocol(judged, protocol)["settings"]
    task, cells = get_task(settings["task"]), [cell for cell in cells_of(judged, protocol) if _asked(cell, settings)]
    for fraction in dict.fromkeys(cell.fraction for cell in cells):
        draws = [read_predictions(judged, protocol, cell) for cell in cells if cell.fraction == fraction]
        measures = seed_measures(task, draws, least_positives(settings))
        of = [measure for measure in measures[0].of if not measure.label]
        found = resample(measures, of, draws[0].patients, None, RESAMPLES, 0)
        rows = hashlib.sha256(json.dumps(list(draws[0].judged.values())).encode()).hexdigest()
        values, drawn = none_if_undefined(found.values.mean(axis=0)), np.round(found.drawn.mean(axis=0), _DIGITS)
        for place, measure in enumerate(of):
            support = min(count for _, count in found.support[place])
            wanted = kept is None or (fraction, measure.metric) in kept
            replicates = none_if_undefined(drawn[:, place]) if wanted else []
            few = is_narrow(found.support[place], DIFFERENCE)
            yield Figure(judge, fraction, measure.metric, values[place], support, rows, replicates, few)


def _asked(cell: Cell, settings: Mapping[str, Any]) -> bool:
    """Whether a cell is of the fractions and seeds that a protocol's record names; of what learns nothing it is."""
    return cell.fraction is None or (cell.fraction in settings["fractions"] and (cell.seed or 0) < settings["seeds"])
