"""`cmcgns evaluate`: every cell of every protocol, each kept as soon as it is done."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from cmcgns.data.images import cache_folder
from cmcgns.errors import UserError
from cmcgns.evaluation.contract import Cell, Job, Predictions, Task
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.leakage import Leakage, check_leakage, refuse
from cmcgns.evaluation.progress import Progress
from cmcgns.evaluation.protocols import EvaluationProtocol
from cmcgns.evaluation.store import (
    ENCODER,
    cell_folder,
    discard,
    is_done,
    read_encoder,
    write_predictions,
    write_protocol,
)
from cmcgns.evaluation.task_data import TaskData
from cmcgns.evaluation.tasks import get_task
from cmcgns.files import write_json

logger = logging.getLogger(__name__)


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
    _claim(out, encoder)
    outcome = Outcome()
    encoder.to(options.device)
    for protocol, folder in pairs:
        try:
            _run_protocol(encoder, protocol, folder, out, options, progress, outcome)
        except UserError as error:
            outcome.failures.append((protocol.id, "", str(error)))
            progress.say(f"{protocol.id}: failed, the reason is below")
        except Exception as error:  # a bug in one protocol must not lose hours of the others
            logger.exception("%s failed", protocol.id)
            outcome.failures.append((protocol.id, "", f"{type(error).__name__}: {error}"))
        progress.clear()
    return outcome


def _run_protocol(
    encoder: FrozenEncoder,
    protocol: EvaluationProtocol,
    folder: Path,
    out: Path,
    options: EvaluateOptions,
    progress: Progress,
    outcome: Outcome,
) -> None:
    size = protocol.image_size or encoder.image_size
    sized = encoder.at_size(size)
    data = TaskData(protocol, folder, size, sized.resize)
    task = get_task(protocol.task)
    if lacks := task.lacks(data, sized):
        outcome.skip(data.name, lacks)
        progress.say(f"{data.name}: skipped, the reason is below")
        return
    progress.begin(data.name, len(_cells(protocol, options, task)))

    def step(text: str, share: float) -> None:
        progress.step(data.name, text, share)

    leakage = check_leakage(data, sized, cache_folder() / "evaluation", step)
    refuse(leakage, options.allow_leakage, cell_folder(out, data.name) / "leakage.csv")
    outcome.protocols[data.name] = protocol
    outcome.leakage[data.name] = leakage.text
    key = _key(sized, data)
    write_protocol(out, data.name, {"key": key} | _record(data, sized, leakage, options))
    cells = _cells(protocol, options, task)
    missing = tuple(cell for cell in cells if not is_done(out, data.name, cell, key))
    progress.found(data.name, len(cells) - len(missing))
    if missing:
        _run_cells(_job(sized, data, missing, out, options, step), task, key, out, progress, outcome)
        try:
            sized.check_unchanged()
        except RuntimeError:
            for cell in missing:  # or the next call would take them for finished
                discard(out, data.name, cell)
            raise
    progress.end(data.name)


def _run_cells(job: Job, task: Task, key: str, out: Path, progress: Progress, outcome: Outcome) -> None:
    """All missing cells in one go, which shares work; if that fails, each of the rest alone."""
    name, done = job.data.name, set[Cell]()

    def keep(found: Cell, predictions: Predictions) -> None:
        write_predictions(out, name, found, key, predictions)
        done.add(found)
        progress.cell_done(name, found)

    try:
        for cell, predictions in task.run(job):
            keep(cell, predictions)
        return
    except Exception as error:
        rest = [cell for cell in job.cells if cell not in done]
        if len(rest) == 1:
            _fail(name, rest[0], error, progress, outcome)
            return
        logger.debug("%s: %s; its cells are tried one by one", name, error)
    for one in rest:
        try:
            for cell, predictions in task.run(_with_cells(job, (one,))):
                keep(cell, predictions)
        except Exception as error:
            _fail(name, one, error, progress, outcome)


def _fail(name: str, cell: Cell, error: Exception, progress: Progress, outcome: Outcome) -> None:
    message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    if not isinstance(error, UserError):
        logger.error("%s, %s failed", name, cell.name, exc_info=error)
    outcome.failures.append((name, cell.name, message))
    progress.say(f"{name}, {cell.name}: {message}")


def _with_cells(job: Job, cells: tuple[Cell, ...]) -> Job:
    return replace(job, cells=cells)


def _job(
    encoder: FrozenEncoder,
    data: TaskData,
    cells: tuple[Cell, ...],
    out: Path,
    options: EvaluateOptions,
    step: Callable[[str, float], None],
) -> Job:
    protocol = data.protocol
    settings = get_task(protocol.task).settings.model_validate(protocol.settings)
    scratch = cell_folder(out, data.name) / "unfinished"
    cache = cache_folder() / "evaluation"
    return Job(protocol, settings, encoder, data, cells, cache, scratch, options.device, step)


def _cells(protocol: EvaluationProtocol, options: EvaluateOptions, task: Task) -> list[Cell]:
    if not task.learns:
        return [Cell()]
    fractions = sorted(set(options.fractions)) or protocol.fractions
    return [Cell(fraction, seed) for fraction in fractions for seed in range(options.seeds or protocol.seeds)]


def _key(encoder: FrozenEncoder, data: TaskData) -> str:
    """Equal keys give equal predictions: encoder, protocol, split, labels, boxes and masks."""
    parts = [encoder.sha256, data.protocol.sha256, data.content_sha256]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def _record(data: TaskData, encoder: FrozenEncoder, leakage: Leakage, options: EvaluateOptions) -> dict[str, object]:
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


def _claim(out: Path, encoder: FrozenEncoder) -> None:
    """A folder belongs to one encoder."""
    if (out / ENCODER).is_file():
        before = read_encoder(out)
        if before.get("sha256") != encoder.sha256:
            raise UserError(
                f"--out {out} holds results of {before.get('encoder')} with other weights: choose another folder "
                "(and `cmcgns compare A B` for both)"
            )
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out} is not empty and holds no results: choose another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / ENCODER, {"encoder": encoder.name, "sha256": encoder.sha256})
    except OSError as error:
        raise UserError(f"--out {out} cannot be written: {error.strerror}") from error
