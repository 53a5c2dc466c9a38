"""`cmcgns evaluate`: every cell of every protocol, each kept as soon as it is done."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cmcgns.common.array_cache import cache_folder
from cmcgns.common.errors import UserError
from cmcgns.common.files import keeps_nothing
from cmcgns.evaluation.contract import Job, Task
from cmcgns.evaluation.data import TaskData, work_key
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.leakage import Leakage, check_leakage, refuse
from cmcgns.evaluation.protocols import Cell, EvaluationProtocol
from cmcgns.evaluation.results import (
    cell_folder,
    discard,
    is_done,
    message_of,
    open_results,
    write_predictions,
    write_protocol,
)
from cmcgns.evaluation.subsets import RULE
from cmcgns.evaluation.tasks import get_task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluateOptions:
    """What the user asked for.

    Attributes:
        fractions: per cent of the training patients, in place of the protocols'.
        seeds: how many, in place of the protocols'.
        allow_leakage: go on although test patients or images were seen in training; said in every row.
        device: where to compute, as for :func:`device_of`.
    """

    fractions: tuple[float, ...] = ()
    seeds: int | None = None
    allow_leakage: bool = False
    device: str = "cpu"


def device_of(name: str) -> str:
    """The device that `auto` means here, or the one that is named.

    Raises:
        UserError: there is no such device.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, colon, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (colon and not number.isdecimal()):
        raise UserError(f"--device {name}: auto, cpu, cuda or cuda:NUMBER is expected")
    if int(number or 0) >= (torch.cuda.device_count() if kind == "cuda" else 1):
        raise UserError(f"--device {name}: there is no such device here")
    return name


@dataclass
class Outcome:
    """What became of a call.

    Attributes:
        protocols: by the name in tables.
        leakage: text by the same name, where leakage was allowed.
        failures: protocol, cell and message of what went wrong.
        lacking: names of the protocols that cannot be done, by the reason that they share.
    """

    protocols: dict[str, EvaluationProtocol] = field(default_factory=dict)
    leakage: dict[str, str] = field(default_factory=dict)
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    lacking: dict[str, list[str]] = field(default_factory=dict)

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """Protocols (between commas) and the reason that they share, which `--protocol all` would repeat."""
        return [(", ".join(names), reason) for reason, names in self.lacking.items()]


def progress_bars(console: Console) -> Progress:
    """What a user sees while an evaluation runs: a bar over a protocol's cells, and what the task is doing."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[doing]}"), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)


def run_protocols(
    encoder: FrozenEncoder,
    pairs: Sequence[tuple[EvaluationProtocol, Path]],
    out: Path,
    options: EvaluateOptions,
    progress: Progress,
) -> Outcome:
    """Compute what is missing; one failing cell or protocol does not lose the others.

    Raises:
        UserError: `out` holds another encoder's results, or the disk refuses what is to be kept.
    """
    open_results(out, encoder.name, encoder.sha256)
    encoder.to(options.device)
    evaluation = _Evaluation(encoder, out, options, progress)
    for protocol, folder in pairs:
        try:
            evaluation.run(protocol, folder)
        except Exception as error:  # a bug in one protocol must not lose hours of the others
            if keeps_nothing(error):
                raise
            evaluation.outcome.failures.append((protocol.id, "", message_of(error, protocol.id)))
            evaluation.say(f"{protocol.id}: failed, the reason is below")
        for bar in progress.task_ids:
            progress.remove_task(bar)
    return evaluation.outcome


@dataclass
class _Evaluation:
    """One call: who is judged, where results go, what the user asked for and sees, and what became of it."""

    encoder: FrozenEncoder
    out: Path
    options: EvaluateOptions
    progress: Progress
    outcome: Outcome = field(default_factory=Outcome)

    def say(self, text: str) -> None:
        """A line that stays."""
        self.progress.console.print(text, markup=False, highlight=False)

    def run(self, protocol: EvaluationProtocol, folder: Path) -> None:
        """Compute the missing cells of a protocol on a prepared dataset."""
        started = time.perf_counter()
        sized = self.encoder.at_size(protocol.image_size or self.encoder.image_size)
        data = TaskData(protocol, folder, sized.image_size, sized.resize)
        task, name = get_task(protocol.task), data.name
        if lacks := task.lacks(data, sized):
            self.outcome.lacking.setdefault(lacks, []).append(name)
            self.say(f"{name}: skipped, the reason is below")
            return
        cells = _cells(protocol, self.options)
        bar = self.progress.add_task(name, total=len(cells), doing="leakage guard")

        def step(text: str, share: float) -> None:
            self.progress.update(bar, doing=f"{text} {share:.0%}")

        cache, scratch = cache_folder() / "evaluation", cell_folder(self.out, name) / "unfinished"
        key = self._record(data, sized, cache, step)
        missing = tuple(cell for cell in cells if not is_done(self.out, name, cell, key))
        self.progress.update(bar, completed=len(cells) - len(missing), doing="")
        if missing:
            self._run_cells(Job(sized, data, missing, cache, scratch, step), task, key, bar)
        self.say(f"{name}: {time.perf_counter() - started:.1f} s")

    def _record(self, data: TaskData, sized: FrozenEncoder, cache: Path, step: Callable[[str, float], None]) -> str:
        """Refuse leakage, then write down what the cells are made from; their key."""
        leakage = check_leakage(data, sized, cache, step)
        refuse(leakage, self.options.allow_leakage, cell_folder(self.out, data.name) / "leakage.csv")
        self.outcome.protocols[data.name] = data.protocol
        self.outcome.leakage[data.name] = leakage.text
        key = work_key(data, sized)
        write_protocol(self.out, data.name, {"key": key} | result_record(data, sized, leakage, self.options))
        return key

    def _run_cells(self, job: Job, task: Task, key: str, bar: TaskID) -> None:
        """All missing cells in one go, which shares work; if that fails, each of the rest alone."""
        name, left = job.data.name, list(job.cells)
        for tried in (job.cells, *((cell,) for cell in job.cells)):
            tried = tuple(cell for cell in tried if cell in left)
            try:
                for cell, predictions in task.run(replace(job, cells=tried)) if tried else ():
                    write_predictions(self.out, name, cell, key, predictions)
                    left.remove(cell)
                    self.progress.update(bar, advance=1, doing=cell.name)
            except Exception as error:
                if keeps_nothing(error):
                    raise
                rest = [cell for cell in tried if cell in left]
                if len(rest) > 1:
                    logger.debug("%s: %s; its cells are tried one by one", name, error)
                    continue
                for cell in rest:
                    left.remove(cell)
                    message = message_of(error, f"{name}, {cell.name}")
                    self.outcome.failures.append((name, cell.name, message))
                    self.say(f"{name}, {cell.name}: {message}")
        try:
            job.encoder.check_unchanged()
        except RuntimeError:
            for cell in job.cells:  # or the next call would take them for finished
                discard(self.out, name, cell)
            raise


def _cells(protocol: EvaluationProtocol, options: EvaluateOptions) -> list[Cell]:
    if not protocol.learns:
        return [Cell()]
    fractions = sorted(set(options.fractions)) or protocol.fractions
    return [Cell(fraction, seed) for fraction in fractions for seed in range(options.seeds or protocol.seeds)]


def result_record(
    data: TaskData, encoder: FrozenEncoder, leakage: Leakage, options: EvaluateOptions
) -> dict[str, object]:
    """What `protocol.json` tells about a protocol's cells besides their key."""
    asked = {"fractions": list(options.fractions), "seeds": options.seeds}  # the report says what is missing of it
    settings = data.protocol.model_dump(mode="json") | {name: value for name, value in asked.items() if value}
    test = data.frame[data.frame["part"] == "test"]
    return {
        "dataset": data.dataset,
        "settings": settings,
        "protocol_sha256": data.protocol.sha256,
        "split_sha256": data.split_sha256,
        "subset_rule": RULE,
        "counts": data.counts(),
        "test_patients": int(test["patient_id"].nunique()),
        "image_size": encoder.image_size,
        "leakage": leakage.text,
        "cautions": [caution.text for caution in leakage.cautions],
        "test": {
            "rows": data.test.names.tolist(),
            "sex": test["sex"].tolist(),
            "view": test["view"].tolist(),
            "age": [None if pd.isna(value) else int(value) for value in test["age"]],
        },
    }
