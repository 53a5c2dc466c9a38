"""The training loop: stages, epochs, steps; everything around a step that is not the method."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cmcgns.common.errors import UserError
from cmcgns.common.processes import Stopped, handling_signals
from cmcgns.data.pairs.batch import Batch, mix, steps_per_epoch
from cmcgns.data.pairs.dataset import PairDataset
from cmcgns.data.pairs.loader import WorkerLost, iterate_batches, make_loader
from cmcgns.data.pairs.near import nearest_reports
from cmcgns.data.shards.stream import ShardImages, training_order
from cmcgns.objectives.objective import STAGES, Stage
from cmcgns.settings.config import Recipe, StageSettings
from cmcgns.training.checkpoint import load_optimizer, save_checkpoint
from cmcgns.training.cluster_log import KnownSentences
from cmcgns.training.journal import Journal
from cmcgns.training.launch import Interruption
from cmcgns.training.run_folder import RunFolder
from cmcgns.training.step import (
    NonFiniteLoss,
    build_optimizer,
    check_recent,
    learning_rate,
    likely_cause,
    set_learning_rate,
    training_step,
    validate,
)
from cmcgns.training.task import PretrainingTask, hand_over, keep_best

logger = logging.getLogger(__name__)

_EPOCH, _STEP = 1, 2  # what a seed is mixed for
Recent = list[tuple[dict[str, torch.Tensor], list[str]]]  # figures and studies of steps not looked at yet


@dataclass
class Loop:
    """A run in progress.

    Attributes:
        fabric: launches, places and casts.
        task: model and objective.
        recipe: all settings.
        train, validation: the rows.
        folder: the run folder.
        journal: the logs.
        resume_from: checkpoint whose state of the optimiser is still to be loaded.
        known: what the validation sentences claim, if that is known.
    """

    fabric: Any
    task: PretrainingTask
    recipe: Recipe
    train: PairDataset
    validation: PairDataset
    folder: RunFolder
    journal: Journal
    resume_from: Path | None = None
    known: KnownSentences | None = None

    def __post_init__(self) -> None:
        self.state = self.journal.state  # where the run stands
        near = self.recipe.training.batches == "near"
        together = self.recipe.training.batch_size * self.fabric.world_size
        if near and together % 2:
            raise UserError(
                f"training.batches=near deals out pairs, and a step takes {together} studies: set an even "
                "training.batch_size"
            )
        self.nearest = nearest_reports(self.train.tokens, self.train.rows) if near else None

    def run(self) -> None:
        """Run all stages from where the run stands.

        Raises:
            Stopped: after a signal, with everything saved.
            NonFiniteLoss: with the study ids.
        """
        if self.state.global_step == 0:
            epochs = sum(getattr(self.recipe, stage).epochs for stage in STAGES)
            self._warn(STAGES[0], self.task.objective.warning_before(epochs * self.micro_steps()))
        self.interruption = Interruption()
        with handling_signals(self.interruption.remember):
            try:
                while self.state.stage < len(STAGES):
                    self._run_stage(STAGES[self.state.stage])
                    self.state.stage += 1
                    self.state.epoch = self.state.step = 0
                    self.state.best = {}
            finally:
                self.journal.console.end_stage()
        self._warn(self.task.objective.stage, self.task.objective.warning_after())

    def micro_steps(self) -> int:
        """Batches of an epoch."""
        return steps_per_epoch(len(self.train), self.recipe.training.batch_size, self.fabric.world_size)

    def steps(self) -> int:
        """Optimiser steps an epoch; the last one may have fewer micro-steps than the others."""
        return math.ceil(self.micro_steps() / self.recipe.training.accumulate)

    def _warn(self, stage: Stage, warning: str | None) -> None:
        if warning is not None:
            self.journal.event(stage, warning)

    def _run_stage(self, stage: Stage) -> None:
        settings: StageSettings = getattr(self.recipe, stage)
        if settings.epochs == 0:
            return
        fresh = self.state.epoch == 0 and self.state.step == 0
        if stage == "reconstruction" and fresh and self.resume_from is None and self.recipe.alignment.epochs:
            self.journal.event(stage, hand_over(self.folder, self.task))
            self._warn(stage, self.task.objective.warning_before(settings.epochs * self.micro_steps()))
        self.task.set_stage(stage)
        module, optimizer = self.fabric.setup(self.task, build_optimizer(self.task, settings))
        if self.resume_from is not None:
            load_optimizer(self.resume_from, self.task, optimizer.optimizer)
            self.resume_from = None
        self.task.train()
        self.journal.console.start_stage(
            stage, settings.epochs * self.steps(), self.state.epoch * self.steps() + self.state.step
        )
        try:
            while self.state.epoch < settings.epochs:
                self._run_epoch(stage, settings, module, optimizer)
        except NonFiniteLoss as error:
            rate = optimizer.param_groups[0]["lr"]
            raise NonFiniteLoss(f"{error}\n  {likely_cause(self.task, stage, rate)}") from error
        self.journal.console.end_stage()

    def _run_epoch(self, stage: Stage, settings: StageSettings, module: Any, optimizer: Any) -> None:
        training, state = self.recipe.training, self.state
        recent: Recent = []
        started = self.task.objective.is_started
        for batches in self._batches_or_save(optimizer, recent):
            done = state.epoch * self.steps() + state.step
            rate = learning_rate(settings, done, self.steps())
            set_learning_rate(optimizer, rate)
            figures = training_step(
                self.fabric, module, self.task, optimizer, batches,
                seed=mix(training.seed, _STEP, state.global_step), clip=training.clip,
            )  # fmt: skip
            state.step += 1
            state.global_step += 1
            recent.append((figures, [name for batch in batches for name in batch.study_ids]))
            if not started and self.task.objective.is_started:
                started = True
                self.journal.event(stage, f"{self.task.objective.late_part} started")
            logs = state.global_step % training.log_every == 0
            due = state.global_step % training.checkpoint_every == 0
            asked = self.interruption.agreed(self.fabric, together=logs or due)
            if logs or due or asked:
                check_recent(recent)
            self._log(stage, figures if logs else None, rate)
            if (due or asked) and state.step < self.steps():  # the end of an epoch saves by itself
                self._checkpoint(optimizer)
                self._stop_if_interrupted(asked)
        check_recent(recent)
        self.journal.console.stop_clock()
        self._end_epoch(stage, settings, optimizer)

    def _batches_or_save(self, optimizer: Any, recent: Recent) -> Iterator[list[Batch]]:
        """The batches of the epoch; when a loader process is lost, what was done until then is saved."""
        try:
            yield from self._batches()
        except WorkerLost as lost:
            check_recent(recent)
            saved = self.state.step > 0 and self.fabric.is_global_zero
            if saved:
                self._save(optimizer)  # without a barrier: other ranks may be well, and wait for a gradient
            done = f"Step {self.state.global_step} is saved" if saved else "Nothing is lost"
            way = "" if isinstance(self.train.images, ShardImages) else ", best with --set data.workers=0"
            reason = "most likely for want of memory (of the machine, or /dev/shm)"
            raise WorkerLost(f"{lost}, {reason}. {done}: go on with --resume{way}") from None

    def _batches(self) -> Iterator[list[Batch]]:
        """The micro-batches of every remaining step of the epoch, on the device."""
        training, state = self.recipe.training, self.state
        order = training_order(
            self.train,
            training.batch_size,
            mix(training.seed, _EPOCH, state.stage, state.epoch),
            start=state.step * training.accumulate,
            rank=self.fabric.global_rank,
            ranks=self.fabric.world_size,
            nearest=self.nearest,
        )
        cuda = self.fabric.device.type == "cuda"
        lonely = 0
        loader = iterate_batches(make_loader(self.train, order, self.recipe.data.workers, pin_memory=cuda))
        for _ in range(self.steps() - state.step):
            group = [batch for _, batch in zip(range(training.accumulate), loader, strict=False)]
            lonely += sum(int(batch.sentence_mask.sum()) < 2 for batch in group)  # still on the host
            yield [batch.to(self.fabric.device) for batch in group]
        if lonely and "weight_report" in self.task.objective.reads and self.recipe.objective.weight_report > 0:
            logger.warning(
                "epoch %d: %d batches held fewer than two sentences, so L_report had nothing to contrast there",
                state.epoch + 1, lonely,
            )  # fmt: skip

    def _end_epoch(self, stage: Stage, settings: StageSettings, optimizer: Any) -> None:
        state, training = self.state, self.recipe.training
        state.epoch, state.step = state.epoch + 1, 0
        loss = 0.0
        if self.fabric.is_global_zero:
            with self.fabric.autocast():
                figures = validate(
                    self.task,
                    self.validation,
                    training.batch_size,
                    training.recall_limit,
                    self.fabric.device,
                    self.known,
                )
            self.journal.console.terms = self.task.terms
            self.journal.validation(stage, figures, settings.epochs)
            self.journal.clusters(stage, self.task.objective.cluster_shares)
            loss = figures["loss"]
            if stage == "alignment" and math.isfinite(loss):
                keep_best(self.folder, self.task, state, figures)
            self._warn(stage, self.task.objective.warning(figures))
        # All ranks have to hear of it, or the others would wait at the next barrier.
        if not math.isfinite(self.fabric.broadcast(loss)):
            raise NonFiniteLoss(f"the validation loss is not finite after {stage} epoch {state.epoch}")
        self._checkpoint(optimizer)
        self._stop_if_interrupted(self.interruption.agreed(self.fabric, together=True))
        self.journal.console.restart_clock()

    def _log(self, stage: Stage, figures: dict[str, torch.Tensor] | None, rate: float) -> None:
        values = None
        if figures is not None:
            values = dict(zip(figures, torch.stack(list(figures.values())).float().tolist(), strict=True))
            values["learning_rate"] = rate
        pairs = self.recipe.training.batch_size * self.recipe.training.accumulate * self.fabric.world_size
        self.journal.console.terms = self.task.terms
        self.journal.console.step(pairs, values)
        if values is not None:
            self.journal.train(stage, values)

    def _checkpoint(self, optimizer: Any) -> None:
        if self.fabric.is_global_zero:
            self._save(optimizer)
        self.fabric.barrier()

    def _save(self, optimizer: Any) -> None:
        self.journal.sync()
        keep = self.recipe.training.keep_checkpoints
        save_checkpoint(self.folder.state, self.task, optimizer.optimizer, self.state, keep)

    def _stop_if_interrupted(self, asked: int) -> None:
        if asked:
            raise Stopped(
                asked, f"stopped at step {self.state.global_step}; everything is saved: go on with --resume"
            )
