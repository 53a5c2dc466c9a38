"""`cmcgns study`: every cell and seed that is not finished, then the table; several processes may share the work."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import yaml
from rich.console import Console
from rich.markup import escape

from cmcgns.common.cluster import on_ray
from cmcgns.common.errors import UserError, first_of, shortened
from cmcgns.common.files import make_folder, write_text
from cmcgns.common.stored import naming_damage
from cmcgns.study.cell import STARTED, Outcome, Work, conflict, do_job, is_untidy, judged_result, place_of
from cmcgns.study.data import fingerprint, study_data
from cmcgns.study.page import write_table
from cmcgns.study.plan import Job, Plan
from cmcgns.study.results import RESULTS, Result, job_name, result_file

STUDY = "study.yaml"  # as it was asked for last
_WAIT = 2.0  # seconds between two looks at a cell in work elsewhere


@dataclass(frozen=True)
class StudyOptions:
    """What the user asked for.

    Attributes:
        cells: names; empty for all.
        seeds: of the training; empty for all.
        engine: `local`, or `ray` for a cluster whose machines share the folder.
        accelerator: auto, cpu, cuda or mps.
    """

    cells: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    engine: Literal["local", "ray"] = "local"
    accelerator: str = "auto"


def run_study(plan: Plan, out: Path, options: StudyOptions) -> Path:
    """Do what is missing and write the table; finished cells are never done again.

    Returns:
        Path of the page.

    Raises:
        UserError: a result of other settings or data, found before anything is trained; a full disk; or, after all
            others are done, the cells that failed.
    """
    console = Console(highlight=False)
    jobs = plan.chosen(options.cells, options.seeds)
    make_folder(out)
    _refuse_another_study(plan, out)
    _refuse_others(plan, out)  # before minutes are spent on drawing studies
    stated = yaml.safe_dump(plan.settings.model_dump(mode="json"), sort_keys=False)
    if not (out / STUDY).is_file():  # another study that comes meanwhile is to see it
        write_text(out / STUDY, stated)
    train, pairs = study_data(plan, out)
    work = Work(plan, out.absolute(), train, pairs, fingerprint(train, pairs, out), options.accelerator)
    _refuse_others(plan, out, work.data)
    write_text(out / STUDY, stated)
    failed = [outcome for outcome in _work_off(work, jobs, options, console) if outcome.state == "failed"]
    if failed:
        if read_results(plan, out):
            _write_newest(plan, out)
        said = first_of(failed, 5, lambda outcome: f"{outcome.job.name}: {outcome.message}")
        raise UserError(
            f"{len(failed)} of {len(jobs)} runs failed; the same command tries them again:\n  " + "\n  ".join(said)
        )
    page = _write_newest(plan, out)
    console.print(f"Open [bold]{escape(str(page))}[/bold]")
    return page


def write_study_table(plan: Plan, out: Path) -> Path:
    """Write table and page from the result files alone.

    Raises:
        UserError: there is no result, a damaged one, one of other settings, or results of different data.
    """
    kept_results(plan, out)
    return _write_newest(plan, out)


def kept_results(plan: Plan, out: Path) -> dict[tuple[str, int], Result]:
    """Results by cell and seed, to make a table from without the data.

    Raises:
        UserError: as of :func:`write_study_table`.
    """
    _refuse_another_study(plan, out)
    _refuse_others(plan, out, judges=False)
    results = read_results(plan, out)
    if not results:
        raise UserError(f"{out / RESULTS}: there is no result of {plan.settings.name} yet")
    first = next(iter(results.values()))
    for result in results.values():
        if result.made_from.data != first.made_from.data:
            names = (job_name(each.cell, each.seed) for each in (first, result))
            one, other = (result_file(out, name) for name in names)
            raise UserError(f"{one} and {other} were made from different data: delete those that are not the study's")
    return results


def _write_newest(plan: Plan, out: Path) -> Path:
    """Write the table, and again if another process has written an older one after a newer one meanwhile."""
    while True:
        results = read_results(plan, out)
        page = write_table(plan, results, out)
        if read_results(plan, out).keys() == results.keys():
            return page


def read_results(plan: Plan, out: Path) -> dict[tuple[str, int], Result]:
    """Results by the study's protocols that are there, by cell and seed."""
    found = ((job, judged_result(plan, out, job)) for job in plan.jobs)
    return {(job.cell, job.seed): result for job, result in found if result is not None}


def _refuse_another_study(plan: Plan, out: Path) -> None:
    """Raise where the folder is of a study of another name: its table and page would be lost."""
    file, way_out = out / STUDY, "choose another --out"
    if not file.is_file():
        return
    with naming_damage(file, "delete it, and it is written again", yaml.YAMLError, AttributeError):
        name = yaml.safe_load(file.read_text("utf-8")).get("name")
    if name != plan.settings.name:
        raise UserError(
            f"{out}: is the folder of the study {shortened(str(name))}, not {plan.settings.name}: {way_out}"
        )


def _refuse_others(plan: Plan, out: Path, data: str | None = None, judges: bool = True) -> None:
    """Raise where a result, or a run that has begun, does not go with the study; as :func:`conflict`."""
    for job in plan.jobs:
        if said := conflict(plan, out, job, data, judges):
            raise UserError(said)


def _work_off(work: Work, jobs: Sequence[Job], options: StudyOptions, console: Console) -> Iterator[Outcome]:
    """Outcome of every job; those in work elsewhere are looked at again when the others are done."""
    finished = [job for job in jobs if _is_done(work, job)]
    if finished:
        console.print(f"{len(finished)} of {len(jobs)} runs are finished already")
    waiting, said = [job for job in jobs if job not in finished], False
    while waiting:
        busy = []
        for outcome in _attempt(work, waiting, options, console):
            if outcome.state == "busy":
                busy.append(outcome.job)
                continue
            yield outcome
            if outcome.state == "failed":  # hours may pass before the last cell is done
                console.print(f"{outcome.job.name} failed: {outcome.message}", markup=False)
            if outcome.state == "done":
                _write_newest(work.plan, work.out)
        if len(busy) == len(waiting):
            if not said:
                names = ", ".join(first_of([job.name for job in busy], 5))
                console.print(f"waiting for {names}: in work elsewhere", markup=False)
            said = True
            time.sleep(_WAIT)
        waiting = busy


def _is_done(work: Work, job: Job) -> bool:
    return judged_result(work.plan, work.out, job) is not None and not is_untidy(work, job)


def _attempt(work: Work, jobs: Sequence[Job], options: StudyOptions, console: Console) -> Iterator[Outcome]:
    if options.engine == "ray":
        gpu = options.accelerator in ("auto", "cuda")
        yield from on_ray(partial(do_job, work), jobs, gpu, lambda job, said: Outcome(job, "failed", said))
        return
    for number, job in enumerate(jobs, 1):
        about = f"{job.name} ({number} of {len(jobs)})"
        yield do_job(work, job, partial(console.print, about, markup=False))


def describe_study(plan: Plan, out: Path, options: StudyOptions) -> Iterator[str]:
    """What would be done: a line for every chosen cell with its overrides and the state of its seeds.

    Raises:
        UserError: as :func:`run_study` before it trains.
    """
    jobs = plan.chosen(options.cells, options.seeds)
    _refuse_another_study(plan, out)
    _refuse_others(plan, out)
    settings = plan.settings
    yield f"{settings.name}: {len(jobs)} runs of recipe {settings.recipe} {' '.join(settings.set)}".rstrip()
    for cell in plan.cells:
        states: dict[str, list[str]] = {}
        for job in jobs:
            if job.cell == cell.name:
                states.setdefault(_state(plan, out, job), []).append(str(job.seed))
        if states:
            about = " ".join([*([f"recipe {cell.recipe}"] if cell.recipe else []), *cell.set])
            without = f"; without {', '.join(cell.without)}" if cell.without else ""
            seeds = "; ".join(f"seeds {', '.join(seeds)} {state}" for state, seeds in states.items())
            yield f"  {cell.name}: {about or 'nothing differs'}{without}; {seeds}"
    for each in plan.judging:
        shares = ", ".join(f"{share:g} %" for share in each.protocol.fractions) if each.protocol.learns else ""
        yield f"  judged by {each.protocol.id} {shares}".rstrip()
    stated = [settings.data, *(each.entry.data for each in plan.judging)]
    for data in dict.fromkeys(each for each in stated if isinstance(each, str)):
        if not Path(data).exists():
            yield f"  data {data}: no such file or folder"


def _state(plan: Plan, out: Path, job: Job) -> str:
    if judged_result(plan, out, job) is not None:
        return "done"
    if result_file(out, job.name).is_file():
        return "to be judged by other protocols"
    return "begun" if (place_of(out, job) / STARTED).is_file() else "to do"
