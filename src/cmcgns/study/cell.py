"""One cell and seed: train, judge, keep the result. Whatever ends it, the same call goes on."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from cmcgns.common.claim import LOCK, FolderInUse, claimed
from cmcgns.common.errors import UserError
from cmcgns.common.files import is_about_a_place, is_left_over, make_folder, write_json
from cmcgns.common.stored import naming_damage, read_json
from cmcgns.evaluation.open_encoder import open_encoder
from cmcgns.evaluation.run import EvaluateOptions
from cmcgns.evaluation.select import Pair
from cmcgns.phantom import sentence_truth
from cmcgns.reporting.evaluation.command import device_of, judge_encoder
from cmcgns.study.plan import Job, Plan
from cmcgns.study.results import Figure, Origin, Result, read_figures, read_result, result_file, write_result
from cmcgns.training.pretrain import pretrain
from cmcgns.training.run_folder import RunFolder

STARTED = "cell.json"  # what a cell that is not finished is made from, and the seconds of its training so far


def place_of(out: Path, job: Job) -> Path:
    """Folder of a job's run and evaluation."""
    return out / "cells" / job.cell / f"seed-{job.seed}"


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

    def place(self, job: Job) -> Path:
        """Folder of a job's run and evaluation."""
        return place_of(self.out, job)

    def origin(self, job: Job) -> Origin:
        """What a job's result is made from."""
        return Origin(job.decisive, self.data, self.plan.protocols)


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


def do_job(work: Work, job: Job) -> Outcome:
    """Do what is missing of a job, unless another process does it.

    Raises:
        UserError: the disk refuses something: the next job would fare no better.
    """
    place = work.place(job)
    make_folder(place)
    try:
        with claimed(place, "study"):
            if not is_judged(work.plan, work.out, job):
                _remove_left_overs(work.out, job)
                write_result(result_file(work.out, job.name), _make(work, job, place))
            tidy(work, job)
    except FolderInUse:
        return Outcome(job, "busy")
    except UserError as error:
        if isinstance(error.__cause__, OSError) and is_about_a_place(error.__cause__):
            raise
        return Outcome(job, "failed", str(error))
    return Outcome(job, "done")


def is_judged(plan: Plan, out: Path, job: Job) -> bool:
    """Whether a job has its result, by the protocols that the study has now."""
    file = result_file(out, job.name)
    return file.is_file() and read_result(file).made_from.protocols == plan.protocols


def is_untidy(work: Work, job: Job) -> bool:
    """Whether a finished job has files left that are not to be kept: its process was killed before they were gone."""
    place, keep = work.place(job), work.plan.settings.keep
    run = RunFolder(place / "run")
    kept = (keep != "all" and run.state.is_dir()) or (keep == "none" and run.model.is_file())
    return kept or (place / LOCK).is_file()


def tidy(work: Work, job: Job) -> None:
    """Remove what the study does not keep of a finished run."""
    run, keep = RunFolder(work.place(job) / "run"), work.plan.settings.keep
    if keep != "all":
        shutil.rmtree(run.state, ignore_errors=True)
    if keep == "none":
        run.model.unlink(missing_ok=True)


def _remove_left_overs(out: Path, job: Job) -> None:
    """What a write of this result that was cut off has left: nobody else writes it."""
    for path in result_file(out, job.name).parent.glob(f".{job.name}.json.*"):
        if is_left_over(path):
            path.unlink(missing_ok=True)


def _make(work: Work, job: Job, place: Path) -> Result:
    run, origin = RunFolder(place / "run"), work.origin(job)
    if not run.is_finished:
        with _noted(place, origin):
            resume = run.config.is_file()
            pretrain(
                job.recipe, work.train, run.path,
                resume=resume, accelerator=work.accelerator, oracle=sentence_truth,
            )  # fmt: skip
    with claimed(run.path, "study"):
        pass  # what a process that was killed after its last step has left there is gone
    logging.getLogger("cmcgns.models.freeze").setLevel(logging.WARNING)  # the run has said it already
    parameters, figures = _judge(work, run.path, place / "judged")
    _, seconds = read_start(place) or (origin, 0.0)
    return Result(job.cell, job.seed, origin.key, origin, round(seconds, 1), parameters, figures)


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
        return Origin(**content["made_from"]), float(content["seconds"])


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


def _judge(work: Work, run: Path, out: Path) -> tuple[int, list[Figure]]:
    """Number of parameters, and figures of every protocol.

    Raises:
        UserError: a protocol failed or cannot be done.
    """
    device = device_of("cpu" if work.accelerator == "mps" else work.accelerator)
    encoder = open_encoder(str(run))
    judgement = judge_encoder(encoder, work.pairs, out, EvaluateOptions(device=device), Console(highlight=False))
    outcome = judgement.outcome
    if wrong := [*outcome.failures, *outcome.skipped]:
        raise UserError("; ".join(": ".join(part for part in each if part) for each in wrong))
    figures = list[Figure]()
    for name, each in zip(outcome.protocols, work.plan.judging, strict=True):
        figures += read_figures(out, name, each.name, work.plan.resampled(each))
    task = encoder.pretrained.task if encoder.pretrained is not None else None
    return sum(each.numel() for each in task.parameters()) if task is not None else 0, figures
