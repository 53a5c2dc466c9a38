"""`cmcgns pretrain`: from a recipe and a folder of pairs to a run folder."""

import logging
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cmcgns.common.errors import UserError
from cmcgns.common.files import sha256, write_json
from cmcgns.data.shards.stream import ShardImages
from cmcgns.models.freeze import unreached_parameters
from cmcgns.objectives.objective import with_options
from cmcgns.settings.config import Recipe
from cmcgns.training.checkpoint import save_weights, set_aside
from cmcgns.training.cluster_log import KnownSentences, SentenceOracle
from cmcgns.training.data import (
    PreparedData,
    describe_batches,
    describe_counts,
    prepare_data,
    summary,
    write_left_out,
)
from cmcgns.training.initialise import check_source, first_task
from cmcgns.training.joint_scores import measure_scores
from cmcgns.training.journal import RunConsole, open_journal
from cmcgns.training.launch import launch
from cmcgns.training.loop import Loop
from cmcgns.training.resumed_rows import rows_of
from cmcgns.training.run_folder import RunFolder, describe_run
from cmcgns.training.start import claimed_run, find_start, nothing_lost, state_of
from cmcgns.training.task import PretrainingTask
from cmcgns.training.write_seen import write_seen

logger = logging.getLogger(__name__)


def pretrain(
    recipe: Recipe,
    data: Path | str,
    out: Path,
    *,
    resume: bool = False,
    init: Path | None = None,
    devices: int = 1,
    nodes: int = 1,
    accelerator: str = "auto",
    quiet: bool = False,
    oracle: SentenceOracle | None = None,
) -> Path:
    """Pretrain in two stages.

    Args:
        recipe: all settings.
        data: table or folder of pairs; or a folder of shards, as path or URL.
        out: run folder; must be new or empty, unless `resume`.
        resume: go on with the run in `out`.
        init: run folder whose weights and tokenizer a new run starts from.
        devices: processes on this machine, as Lightning Fabric takes them.
        nodes: machines.
        accelerator: auto, cpu, cuda or mps.
        quiet: print nothing.
        oracle: what sentences say, such as :func:`cmcgns.phantom.sentence_truth`. If it knows all of the validation
            sentences, every validation logs how good the clusters are.

    Returns:
        The run folder.

    Raises:
        UserError: bad settings or data, a folder that another process works in, or a disk that is full.
        Stopped: after SIGTERM or SIGINT, with the state saved.
        NonFiniteLoss: with the study ids of the batch.
    """
    if resume and init:
        raise UserError("--resume goes on with a run, --init starts a new one: give one of them")
    recipe = with_options(recipe)  # a wrong name is said before anything is read or made
    folder, init = RunFolder(Path(out)), Path(init) if init else None
    with claimed_run(folder, resume), nothing_lost(folder):
        _run(folder, recipe, data, resume, init, lambda: launch(recipe, devices, nodes, accelerator), quiet, oracle)
    return folder.path


def _run(
    folder: RunFolder,
    recipe: Recipe,
    data: Path | str,
    resume: bool,
    init: Path | None,
    start: Callable[[], Any],
    quiet: bool,
    oracle: SentenceOracle | None,
) -> None:
    """The run, in a folder of its own."""
    latest = find_start(folder, recipe, resume)
    fabric = start()
    if latest and fabric.is_global_zero:
        set_aside(folder.state, latest)
    if resume and latest is None and folder.is_finished:  # and its state was deleted, as the documentation allows
        RunConsole(quiet).say(f"{folder.path} is finished: nothing is left to do")
        return
    if resume and latest is None:
        init = folder.read_init()  # starts over, from where it started before
    prepared = _prepare(recipe, data, folder, latest, init, fabric)
    batches = describe_batches(recipe, len(prepared.train), fabric.world_size)
    _check_workers(folder, recipe, prepared)
    task = first_task(recipe, prepared, folder, latest, init)
    state = state_of(latest, fabric.world_size)
    console = RunConsole(quiet or not fabric.is_global_zero)
    if fabric.is_global_zero:
        _write_start(folder, recipe, prepared, task, init, fresh=latest is None)
        console.say(f"{describe_counts(summary(prepared))}\n{batches}")
    with open_journal(folder, console, state, fabric.is_global_zero) as journal:
        known = _known_sentences(prepared, oracle) if fabric.is_global_zero else None
        Loop(fabric, task, recipe, prepared.train, prepared.validation, folder, journal, latest, known).run()
    if fabric.is_global_zero:
        _write_end(folder, task, recipe, prepared)
        console.say(f"done: {folder.path}")
    fabric.barrier()


def _prepare(
    recipe: Recipe, data: Path | str, folder: RunFolder, latest: Path | None, init: Path | None, fabric: Any
) -> PreparedData:
    """The data, with the tokenizer of the run or of the one it starts from."""
    if init is not None:
        check_source(RunFolder(init))
    tokenizer = folder.tokenizer if latest else (init / "tokenizer" if init else None)
    resumed = rows_of(folder) if latest or folder.seen.is_file() else None
    fixed_shapes = fabric.world_size > 1 or fabric.device.type == "cuda"
    prepared = prepare_data(recipe, data, tokenizer, fixed_shapes, resumed)
    if resumed:
        for part, each in (("train", prepared.train), ("val", prepared.validation)):
            if not isinstance(each.images, ShardImages):
                resumed.check_pixels(prepared.pairs, part, each.images, each.rows)
    return prepared


def _known_sentences(prepared: PreparedData, oracle: SentenceOracle | None) -> KnownSentences | None:
    """What the validation sentences claim, if all of them are known."""
    if oracle is None:
        return None
    return KnownSentences.of(prepared.pairs.frame["text"].iloc[prepared.validation.rows], oracle)


def _check_workers(folder: RunFolder, recipe: Recipe, prepared: PreparedData) -> None:
    """Of streamed shards the order of the rows depends on the number of loader processes."""
    if not (folder.config.is_file() and isinstance(prepared.train.images, ShardImages)):
        return
    before = folder.read_recipe().data.workers
    if max(1, before) != max(1, recipe.data.workers):
        raise UserError(
            f"--resume: the run has data.workers={before}, not {recipe.data.workers}: another order of the shards"
        )


def _write_start(
    folder: RunFolder, recipe: Recipe, prepared: PreparedData, task: PretrainingTask, init: Path | None, fresh: bool
) -> None:
    noted = folder.seen.is_file()  # what is written last: a run that starts over keeps what its first start noted
    if fresh and not noted:
        folder.create(recipe, init)
        for encoder in (task.model.image_encoder, task.model.report_encoder):
            if unused := unreached_parameters(encoder):
                logger.info("%d parameters are not used and stay as they are: %s", len(unused), ", ".join(unused))
        prepared.tokenizer.save_pretrained(str(folder.tokenizer))
        write_json(folder.report_encoder, task.model.report_encoder.config)
        write_left_out(prepared.pairs, folder.left_out)
        content = describe_run(recipe, prepared.pairs.source)
        folder.write_provenance(content | {"data": summary(prepared)})
    if not noted:  # a run that is older than this file gets it when it goes on
        folder.write_provenance({"seen": write_seen(folder, prepared, recipe, folder.read_init())})


def _write_end(folder: RunFolder, task: PretrainingTask, recipe: Recipe, prepared: PreparedData) -> None:
    write_json(folder.scores, asdict(measure_scores(task, prepared, recipe)))
    save_weights(folder.model, task, {"name": recipe.name}, task.training_only)
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    folder.write_provenance({"finished": finished, "model_sha256": sha256(folder.model)})
    folder.write_card(recipe, aligned=not task.objective.lacks_score("global"))
