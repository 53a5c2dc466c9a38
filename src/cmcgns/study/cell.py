"""One cell and seed: train, judge, keep the result. Whatever ends it, the same call goes on."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter
from rich.console import Console

from cmcgns.common.claim import LOCK, FolderInUse, claimed
from cmcgns.common.errors import UserError, first_of, one_line
from cmcgns.common.files import is_left_over, keeps_nothing, write_json
from cmcgns.common.stored import naming_damage, read_json
from cmcgns.evaluation.open_encoder import open_encoder
from cmcgns.evaluation.run import EvaluateOptions
from cmcgns.evaluation.select import Pair
from cmcgns.phantom import sentence_truth
from cmcgns.reporting.evaluation.command import judge_encoder
from cmcgns.study.plan import Job, Plan
from cmcgns.study.results import Figure, Origin, Result, read_figures, read_result, result_file, write_result
from cmcgns.training.pretrain import pretrain
from cmcgns.training.run_folder import RunFolder

logger = logging.getLogger(__name__)

_ORIGIN = TypeAdapter(Origin)
STARTED = "cell.json"  # what a cell that is not finished is made from, and the seconds of its training so far


def place_of(out: Path, job: Job) -> Path:
    """Folder of a job's run and evaluation."""
    return out / "cells" / job.cell / f"seed-{job.seed}"


def run_of(out: Path, job: Job) -> RunFolder:
    """A job's run."""
    return RunFolder(place_of(out, job) / "run")


@dataclass(frozen=True)
class Work:
    """All that a process needs to do jobs of a study; picklable.

    Attributes:
        plan: the study.
        out: its folder.
        train: data to pretrain on.
        pairs: protocols with the data that each judges on, in the order of the plan's.
        data: fingerprint of all of it.
        accelerator: auto, cpu, cuda or mps.
    """

    plan: Plan
    out: Path
    train: Path
    pairs: list[Pair]
    data: str
    accelerator: str

    def origin(self, job: Job) -> Origin:
        """What a job's result is made from."""
        return Origin(job.decisive, self.data, self.plan.protocols_of(job.cell))


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        job: the job.
        state: busy: another process works on it.
        message: why it failed.
    """

    job: Job
    state: Literal["done", "busy", "failed"]
    message: str = ""


def do_job(work: Work, job: Job, begun: Callable[[], None] | None = None) -> Outcome:
    """Do what is missing of a job, unless another process does it.

    Args:
        work: the study.
        job: of it.
        begun: called when the job is this process's.

    Raises:
        UserError: the disk refuses something: the next job would fare no better.
    """
    place = place_of(work.out, job)
    try:
        with claimed(place, "study"):
            if begun is not None:
                begun()
            # Since the study looked at all cells, another process with another study may have made this one.
            if said := conflict(work.plan, work.out, job, data=work.data):
                return Outcome(job, "failed", said)
            if judged_result(work.plan, work.out, job) is None:
                _remove_left_overs(work.out, job)
                write_result(result_file(work.out, job.name), _make(work, job, place))
            tidy(work, job)
    except FolderInUse:
        return Outcome(job, "busy")
    except Exception as error:  # of the libraries below, such as too little memory: other cells may do
        if keeps_nothing(error):
            raise
        if isinstance(error, UserError):
            return Outcome(job, "failed", str(error))
        logger.exception("%s", job.name)
        return Outcome(job, "failed", f"{type(error).__name__}: {one_line(error)}")
    return Outcome(job, "done")


def judged_result(plan: Plan, out: Path, job: Job) -> Result | None:
    """Result of a job by the protocols that the study has now, if there is one."""
    file = result_file(out, job.name)
    result = read_result(file) if file.is_file() else None
    return result if result and result.made_from.protocols == plan.protocols_of(job.cell) else None


def conflict(plan: Plan, out: Path, job: Job, data: str | None = None, judges: bool = True) -> str:
    """Why what was made of a job does not go with the study as it is now; empty if it does.

    Args:
        plan: the study.
        out: its folder.
        job: of the study.
        data: fingerprint of the study's data; None where it is not known yet.
        judges: whether runs that are kept are judged again where the protocols are others.
    """
    way_out = f"choose another --out, or delete {result_file(out, job.name)} and {place_of(out, job)}"
    run = run_of(out, job)
    judged_again = judges and run.model.is_file()
    if judges and run.has_ended and not run.model.is_file() and not result_file(out, job.name).is_file():
        place = place_of(out, job)
        return f"{run.path}: its weights were not kept: delete {place}, and it is trained again"
    for where, origin in _made(out, job):
        changed = origin.settings_that_differ(job.decisive)
        protocols = plan.protocols_of(job.cell)
        if where.is_file() and origin.protocols != protocols and not judged_again:
            changed += _protocols_that_differ(origin.protocols, protocols)
        if changed:
            return f"{where} was made with other settings: {', '.join(first_of(changed, 5))}: {way_out}"
        if data is not None and origin.data != data:
            return f"{where} was made from other data: {way_out}"
    return ""


def _protocols_that_differ(before: list[list[Any]], now: list[list[Any]]) -> list[str]:
    """Names of the protocols that are not as they were, or all of them where only their order is another."""
    named = [{str(each[0]): each for each in protocols} for protocols in (before, now)]
    names = dict.fromkeys([*named[0], *named[1]])
    changed = [name for name in names if named[0].get(name) != named[1].get(name)]
    return [f"judge: {name}" for name in changed] or ["judge: the order of its entries"]


def _made(out: Path, job: Job) -> Iterator[tuple[Path, Origin]]:
    """What was made of a job, and from what."""
    if (file := result_file(out, job.name)).is_file():
        yield file, read_result(file).made_from
    if start := read_start(place_of(out, job)):
        yield place_of(out, job), start[0]


def is_untidy(work: Work, job: Job) -> bool:
    """Whether a finished job has files left that are not to be kept: its process was killed before they were gone."""
    surplus = [*_surplus(work, job), place_of(work.out, job) / LOCK]
    return any(path.exists() for path in surplus)


def tidy(work: Work, job: Job) -> None:
    """Remove what the study does not keep of a finished run."""
    for path in _surplus(work, job):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _surplus(work: Work, job: Job) -> list[Path]:
    """What there may be of a finished run that the study does not keep: its checkpoints, its weights."""
    run, keep = run_of(work.out, job), work.plan.settings.keep
    return [run.state] * (keep != "all") + [run.model] * (keep == "none")


def _remove_left_overs(out: Path, job: Job) -> None:
    """What a write of this result that was cut off has left: nobody else writes it."""
    for path in result_file(out, job.name).parent.glob(f".{job.name}.json.*"):
        if is_left_over(path):
            path.unlink(missing_ok=True)


def _make(work: Work, job: Job, place: Path) -> Result:
    run, origin = run_of(work.out, job), work.origin(job)
    if not run.is_finished:
        with _noted(place, origin):
            resume = run.config.is_file()
            pretrain(
                job.recipe, work.train, run.path,
                resume=resume, accelerator=work.accelerator, oracle=sentence_truth,
            )  # fmt: skip
    with claimed(run.path, "study"):
        pass  # what a process that was killed after its last step has left there is gone
    parameters, figures = _judge(work, job.cell, run.path, place / "judged")
    _, seconds = read_start(place) or (origin, 0.0)
    return Result(job.cell, job.seed, origin, round(seconds, 1), parameters, figures)


def read_start(place: Path) -> tuple[Origin, float] | None:
    """What a job that has begun is made from, and the seconds of its training so far; None if it has not begun.

    Raises:
        UserError: the file is damaged.
    """
    file = place / STARTED
    if not file.is_file():
        return None
    way_out = f"delete {place}, and the cell starts anew"
    content = read_json(file, way_out)
    with naming_damage(file, way_out):
        return _ORIGIN.validate_python(content["made_from"]), float(content["seconds"])


@contextmanager
def _noted(place: Path, origin: Origin) -> Iterator[None]:
    """Note what a run is made from before it starts, and how long it took, interruptions not counted."""
    _, before = read_start(place) or (origin, 0.0)
    started = time.perf_counter()

    def note(seconds: float) -> None:
        write_json(place / STARTED, {"made_from": asdict(origin), "seconds": seconds})

    note(before)
    try:
        yield
    finally:
        note(before + time.perf_counter() - started)


def _judge(work: Work, cell: str, run: Path, out: Path) -> tuple[int, list[Figure]]:
    """Number of parameters, and figures of every protocol that applies to the cell.

    Raises:
        UserError: a protocol failed or cannot be done.
    """
    device = "cpu" if work.accelerator == "mps" else work.accelerator
    encoder = open_encoder(str(run))
    judging = work.plan.judging_of(cell)
    pairs = [pair for each, pair in zip(work.plan.judging, work.pairs, strict=True) if each in judging]
    judgement = judge_encoder(encoder, pairs, out, EvaluateOptions(device=device), Console(highlight=False))
    outcome = judgement.outcome
    if wrong := [*outcome.failures, *outcome.skipped]:
        raise UserError("; ".join(": ".join(part for part in each if part) for each in wrong))
    figures = list[Figure]()
    for name, each in zip(outcome.protocols, judging, strict=True):
        figures += read_figures(out, name, each.name, work.plan.resampled(each))
    task = encoder.pretrained.task if encoder.pretrained is not None else None
    return sum(each.numel() for each in task.parameters()) if task is not None else 0, figures
