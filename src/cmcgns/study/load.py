"""From a study's YAML to a plan; whatever is wrong with it is said before anything is trained."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Any

from pydantic import BaseModel

from cmcgns.common.errors import UserError, shortened
from cmcgns.evaluation.protocols import load_protocol
from cmcgns.evaluation.task_settings.of_texts import TextSettings
from cmcgns.objectives.objective import Objective, with_options
from cmcgns.settings.config import Recipe
from cmcgns.settings.recipe import load_recipe
from cmcgns.settings.yaml import apply_overrides, named_text, parse_mapping, validated
from cmcgns.study.plan import Job, Judging, Plan, refuse_unknown
from cmcgns.study.settings import (
    SUMMARY,
    CellSettings,
    JudgeSettings,
    MeasureSettings,
    PhantomData,
    StudySettings,
)
from cmcgns.training.task import try_out

_SEED = "training.seed"


def load_plan(study: str) -> Plan:
    """A study by the name of a shipped one, or from a YAML file.

    Args:
        study: name, or path of a .yaml file.

    Raises:
        UserError: whatever makes it impossible, named by its key: settings that do not exist, two cells of one name,
            an unknown baseline, protocol or measure, an override that no recipe takes.
    """
    content = parse_mapping(named_text("study", study, "cmcgns.study", "studies"), study)
    where = f"study {shortened(study)}"
    settings = _settings(content, where)
    cells = _cells(settings, where)
    _refuse_clashes(settings.set, where)
    for cell in cells:
        _refuse_clashes(cell.set, f"{where}: cell {cell.name}")
    recipes = {cell.name: _recipe(settings, cell, where) for cell in cells}
    _refuse_equal(recipes, where)
    objectives = {cell: _objective(recipe, f"{where}: cell {cell}") for cell, recipe in recipes.items()}
    jobs = _jobs(settings, cells, recipes, where)
    judging = tuple(_judging(entry, f"{where}: judge") for entry in settings.judge)
    _refuse_twice((("judge", each.name) for each in judging), where)
    _refuse_twice((("judge", f"{each.protocol.id} on {each.entry.data or 'data'}") for each in judging), where)
    for cell in cells:
        _check_judging(cell, judging, objectives[cell.name], f"{where}: cell {cell.name}")
    columns = tuple(_column(each, judging, f"{where}: measures") for each in settings.measures)
    _check_columns(columns, settings.summary, where)
    _check_baselines(settings, cells, columns, where)
    return Plan(settings, tuple(cells), tuple(jobs), judging, columns)


def _settings(content: dict[str, Any], where: str) -> StudySettings:
    """The whole, its parts first: a message about a part then knows the names that it may have."""
    parts: dict[str, type[BaseModel]] = {"cells": CellSettings, "judge": JudgeSettings, "measures": MeasureSettings}
    for key, model in parts.items():
        if isinstance(content.get(key), list):
            entries = enumerate(content[key], 1)
            content[key] = [validated(model, each, f"{where}, {key}, entry {number}") for number, each in entries]
    if isinstance(content.get("data"), dict):
        content["data"] = validated(PhantomData, content["data"], f"{where}, data")
    return validated(StudySettings, content, where)


def _cells(settings: StudySettings, where: str) -> list[CellSettings]:
    """Those that are listed, or the product of the grid's axes."""
    if bool(settings.cells) == bool(settings.grid):
        raise UserError(f"{where}: give either cells or grid")
    cells = list(settings.cells)
    for choice in product(*(axis.items() for axis in settings.grid.values())) if settings.grid else ():
        name = "+".join(label for label, _ in choice)
        content = {"name": name, "set": [override for _, overrides in choice for override in overrides]}
        cells.append(validated(CellSettings, content, f"{where}: grid"))
    if not cells:
        raise UserError(f"{where}: grid: an axis has no labels")
    # Some disks do not tell capitals from small letters.
    _refuse_twice((("cells", cell.name.casefold()) for cell in cells), where)
    names = [cell.name for cell in cells]
    for baseline in settings.baseline:
        refuse_unknown("baseline", baseline, names, where)
    _refuse_twice((("baseline", name) for name in settings.baseline), where)
    return cells


def _jobs(
    settings: StudySettings, cells: Sequence[CellSettings], recipes: Mapping[str, Recipe], where: str
) -> list[Job]:
    """All cells of the first seed, then those of the next one that have it."""
    own = {cell.name: cell.seeds or settings.seeds for cell in cells}
    for name, seeds in {
        "seeds": settings.seeds,
        **{f"cell {cell.name}: seeds": cell.seeds for cell in cells},
    }.items():
        _refuse_twice(((name, str(seed)) for seed in seeds), where)
    every = dict.fromkeys([*settings.seeds, *(seed for seeds in own.values() for seed in seeds)])
    return [
        Job(cell.name, seed, _with_seed(recipes[cell.name], seed))
        for seed in every
        for cell in cells
        if seed in own[cell.name]
    ]


def _with_seed(recipe: Recipe, seed: int) -> Recipe:
    return recipe.model_copy(update={"training": recipe.training.model_copy(update={"seed": seed})})


def _objective(recipe: Recipe, where: str) -> Objective:
    """What the recipe trains for; raises where there can be no such encoder and objective."""
    with _naming(where):
        return try_out(recipe).objective


def _check_judging(cell: CellSettings, judging: Sequence[Judging], objective: Objective, where: str) -> None:
    """Raise where a cell is judged by nothing, or by what its objective trains nothing for."""
    names = [each.name for each in judging]
    for name in cell.without:
        refuse_unknown("without", name, names, where)
    left = [each for each in judging if each.name not in cell.without]
    if not left:
        raise UserError(f"{where}: without names all that judges: leave the cell out")
    asked = ((each.name, each.protocol.task_settings) for each in left)
    of_texts = ((name, settings) for name, settings in asked if isinstance(settings, TextSettings))
    lacking = {name: reason for name, settings in of_texts if (reason := settings.lacked_by(objective))}
    if lacking:
        name, reason = next(iter(lacking.items()))
        without = ", ".join([*cell.without, *lacking])
        raise UserError(f"{where}: {name} cannot be done: {reason}; give the cell `without: [{without}]`")


def _check_baselines(
    settings: StudySettings, cells: Sequence[CellSettings], columns: Sequence[MeasureSettings], where: str
) -> None:
    """Raise where a baseline has none of the measures: nothing could be compared with it."""
    by_name = {cell.name: cell for cell in cells}
    for name in settings.baseline:
        if all(column.protocol in by_name[name].without for column in columns):
            raise UserError(
                f"{where}: baseline: {name} has none of the measures (see its `without`): name another cell"
            )


def _recipe(settings: StudySettings, cell: CellSettings, where: str) -> Recipe:
    """Of a cell, with the study's first seed."""
    overrides = [*settings.set, *cell.set]
    with _naming(f"{where}: cell {cell.name}"):
        _refuse_seed(overrides)
        recipe = load_recipe(cell.recipe or settings.recipe, [*overrides, f"{_SEED}={settings.seeds[0]}"])
        return with_options(recipe)


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """A block whose errors begin with the place that they are about."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _refuse_seed(overrides: Sequence[str]) -> None:
    """Raise where overrides set the seed, be it as a part of `training={…}`."""
    content: dict[str, Any] = {}
    apply_overrides(content, overrides)
    training = content.get("training")
    if isinstance(training, dict) and "seed" in training:
        raise UserError(f"{_SEED} is what `seeds` lists: leave it out of `set`")


def _refuse_clashes(overrides: Sequence[str], where: str) -> None:
    """Raise where an override, such as one of another axis, undoes one before it."""
    keys = [override.partition("=")[0].strip() for override in overrides]
    for number, key in enumerate(keys):
        for other in keys[number + 1 :]:
            if f"{key}.".startswith(f"{other}."):  # a group first and then a part of it both count
                both = key if key == other else f"{key} and {other}"
                raise UserError(f"{where}: `set` gives {both} twice; the first would be ignored")


def _refuse_equal(recipes: Mapping[str, Recipe], where: str) -> None:
    """Raise where two cells are one recipe: hours would be spent to learn nothing."""
    seen: dict[str, str] = {}
    for cell, recipe in recipes.items():
        first = seen.setdefault(json.dumps(Job(cell, recipe.training.seed, recipe).decisive), cell)
        if first != cell:
            raise UserError(f"{where}: cells: {first} and {cell} are the same recipe: leave one out")


def _judging(entry: JudgeSettings, where: str) -> Judging:
    with _naming(where):
        protocol = load_protocol(entry.protocol, entry.set)
    if not protocol.learns and (entry.fractions or entry.seeds):
        raise UserError(f"{where}: {entry.protocol} learns from no labels: leave out fractions and seeds")
    asked = {"fractions": sorted(set(entry.fractions)), "seeds": entry.seeds}
    changes = {name: value for name, value in asked.items() if value}
    return Judging(entry.name or entry.protocol, protocol.model_copy(update=changes), entry)


def _column(asked: MeasureSettings, judging: Sequence[Judging], where: str) -> MeasureSettings:
    by_name = {each.name: each for each in judging}
    refuse_unknown("protocol", asked.protocol, list(by_name), where)
    protocol = by_name[asked.protocol].protocol
    figures = protocol.task_settings.figures
    refuse_unknown(f"{asked.protocol}: measure", asked.measure, figures, where)
    fractions: list[float | None] = [*protocol.fractions] if protocol.learns else [None]
    fraction = asked.fraction if asked.fraction or len(fractions) > 1 else fractions[0]
    if fraction not in fractions:
        there = ", ".join(f"{each:g}" for each in fractions if each is not None) or "none"
        raise UserError(f"{where}: {asked.protocol}: fraction {fraction or 'null'}: judge has {there}")
    title = asked.title or _described(asked.protocol, asked.measure, fraction)
    return asked.model_copy(update={"fraction": fraction, "title": title})


def _described(protocol: str, measure: str, fraction: float | None) -> str:
    """A measure as text."""
    return f"{protocol} {measure}" + (f", {fraction:g} %" if fraction is not None else "")


def _check_columns(columns: Sequence[MeasureSettings], summary: Sequence[str], where: str) -> None:
    """Raise where a measure would count twice, or a heading be that of another column."""
    titles = [column.title for column in columns]
    _refuse_twice((("measures: title", title) for title in titles), where)
    measures = [_described(each.protocol, each.measure, each.fraction) for each in columns]
    _refuse_twice((("measures", measure) for measure in measures), where)
    if SUMMARY in titles:
        raise UserError(f"{where}: measures: title: {SUMMARY} is that of `summary`: choose another one")
    for title in summary:
        refuse_unknown("summary", title, titles, where)
    _refuse_twice((("summary", title) for title in summary), where)


def _refuse_twice(named: Iterable[tuple[str, str]], where: str) -> None:
    """Raise where two entries of a list have one name."""
    for (key, name), times in Counter(named).items():
        if times > 1:
            raise UserError(f"{where}: {key}: {name} is there {times} times; names must differ")
