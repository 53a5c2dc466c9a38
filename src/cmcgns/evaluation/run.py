"""`cmcgns evaluate`: every cell of every protocol, each kept as soon as it is done."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from cmcgns.common.array_cache import cache_folder
from cmcgns.common.errors import UserError
from cmcgns.evaluation.contract import Job, Predictions, Task
from cmcgns.evaluation.data import TaskData, work_key
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.leakage import Leakage, check_leakage, refuse
from cmcgns.evaluation.progress import Progress
from cmcgns.evaluation.protocols import Cell, EvaluationProtocol
from cmcgns.evaluation.store import cell_folder, discard, is_done, open_results, write_predictions, write_protocol
from cmcgns.evaluation.tasks import get_task


@dataclass(frozen=True)
class EvaluateOptions:
    """What the user asked for.

    Attributes:
        fractions: per cent of the training patients, in place of the protocols'.
        seeds: how many, in place of the protocols'.
        allow_leakage: go on although test patients or images were seen in training; said in every row.
        device: where to compute.
    """

    fractions: tuple[float, ...] = ()
    seeds: int | None = None
    allow_leakage: bool = False
    device: str = "cpu"


@dataclass
class Outcome:
    """What became of a call.

    Attributes:
        protocols: by the name in tables.
        leakage: text by the same name, where leakage was allowed.
        failures: protocol, cell and message of what went wrong.
        skipped: protocols (between commas) and the reason that they share.
    """

    protocols: dict[str, EvaluationProtocol] = field(default_factory=dict)
    leakage: dict[str, str] = field(default_factory=dict)
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def skip(self, name: str, reason: str) -> None:
        """A protocol cannot be done; those of one reason share a line, which `--protocol all` would repeat."""
        reasons = [known for _, known in self.skipped]
        if reason in reasons:
            place = reasons.index(reason)
            self.skipped[place] = (f"{self.skipped[place][0]}, {name}", reason)
        else:
            self.skipped.append((name, reason))


logger = logging.getLogger(__name__)


def run_protocols(
    encoder: FrozenEncoder,
    pairs: Sequence[tuple[EvaluationProtocol, Path]],
    out: Path,
    options: EvaluateOptions,
    progress: Progress,
) -> Outcome:
    """Compute what is missing; one failing cell or protocol does not lose the others.

    Args:
        encoder: who is judged; one folder holds results of one encoder.
        pairs: each protocol with the prepared dataset that it is run on.
        out: folder of results.
        options: fractions, seeds and so on.
        progress: what the user sees.

    Raises:
        UserError: `out` holds another encoder's results.
    """
    open_results(out, encoder.name, encoder.sha256)
    encoder.to(options.device)
    evaluation = _Evaluation(encoder, out, options, progress)
    for protocol, folder in pairs:
        try:
            evaluation.run(protocol, folder)
        except UserError as error:
            evaluation.outcome.failures.append((protocol.id, "", str(error)))
            progress.say(f"{protocol.id}: failed, the reason is below")
        except Exception as error:  # a bug in one protocol must not lose hours of the others
            logger.exception("%s failed", protocol.id)
            evaluation.outcome.failures.append((protocol.id, "", f"{type(error).__name__}: {error}"))
        progress.clear()
    return evaluation.outcome


@dataclass
class _Evaluation:
    """One call: who is judged, where results go, what the user asked for and sees, and what became of it."""

    encoder: FrozenEncoder
    out: Path
    options: EvaluateOptions
    progress: Progress
    outcome: Outcome = field(default_factory=Outcome)

    @property
    def cache(self) -> Path:
        """Where features are kept between calls."""
        return cache_folder() / "evaluation"

    def run(self, protocol: EvaluationProtocol, folder: Path) -> None:
        """Compute the missing cells of a protocol on a prepared dataset."""
        size = protocol.image_size or self.encoder.image_size
        sized = self.encoder.at_size(size)
        data = TaskData(protocol, folder, size, sized.resize)
        task, name = get_task(protocol.task), data.name
        if lacks := task.lacks(data, sized):
            self.outcome.skip(name, lacks)
            self.progress.say(f"{name}: skipped, the reason is below")
            return
        cells = _cells(protocol, self.options)
        self.progress.begin(name, len(cells))

        def step(text: str, share: float) -> None:
            self.progress.step(name, text, share)

        key = self._record(data, sized, step)
        missing = tuple(cell for cell in cells if not is_done(self.out, name, cell, key))
        self.progress.found(name, len(cells) - len(missing))
        if missing:
            self._run_cells(self._job(sized, data, missing, step), task, key)
            self._check_unchanged(sized, name, missing)
        self.progress.end(name)

    def _record(self, data: TaskData, sized: FrozenEncoder, step: Callable[[str, float], None]) -> str:
        """Refuse leakage, then write down what the cells are made from; their key."""
        leakage = check_leakage(data, sized, self.cache, step)
        refuse(leakage, self.options.allow_leakage, cell_folder(self.out, data.name) / "leakage.csv")
        self.outcome.protocols[data.name] = data.protocol
        self.outcome.leakage[data.name] = leakage.text
        key = work_key(data, sized)
        write_protocol(self.out, data.name, {"key": key} | result_record(data, sized, leakage, self.options))
        return key

    def _job(
        self, sized: FrozenEncoder, data: TaskData, cells: tuple[Cell, ...], step: Callable[[str, float], None]
    ) -> Job:
        scratch = cell_folder(self.out, data.name) / "unfinished"
        return Job(sized, data, cells, self.cache, scratch, self.options.device, step)

    def _run_cells(self, job: Job, task: Task, key: str) -> None:
        """All missing cells in one go, which shares work; if that fails, each of the rest alone."""
        name, done = job.data.name, set[Cell]()

        def keep(found: Cell, predictions: Predictions) -> None:
            write_predictions(self.out, name, found, key, predictions)
            done.add(found)
            self.progress.cell_done(name, found)

        try:
            for cell, predictions in task.run(job):
                keep(cell, predictions)
            return
        except Exception as error:
            rest = [cell for cell in job.cells if cell not in done]
            if len(rest) == 1:
                self._fail(name, rest[0], error)
                return
            logger.debug("%s: %s; its cells are tried one by one", name, error)
        for one in rest:
            try:
                for cell, predictions in task.run(replace(job, cells=(one,))):
                    keep(cell, predictions)
            except Exception as error:
                self._fail(name, one, error)

    def _fail(self, name: str, cell: Cell, error: Exception) -> None:
        message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        if not isinstance(error, UserError):
            logger.error("%s, %s failed", name, cell.name, exc_info=error)
        self.outcome.failures.append((name, cell.name, message))
        self.progress.say(f"{name}, {cell.name}: {message}")

    def _check_unchanged(self, sized: FrozenEncoder, name: str, cells: Sequence[Cell]) -> None:
        try:
            sized.check_unchanged()
        except RuntimeError:
            for cell in cells:  # or the next call would take them for finished
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
