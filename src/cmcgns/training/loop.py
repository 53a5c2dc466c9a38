"""The training loop: stages, epochs, steps; everything around a step that is not the method."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cmcgns.data.pairs.batch import Batch
from cmcgns.data.pairs.dataset import PairDataset, make_loader, serve
from cmcgns.data.pairs.order import mix, steps_per_epoch
from cmcgns.data.shards.stream import training_order
from cmcgns.objectives.cmcgns import Stage
from cmcgns.settings.config import Recipe, StageSettings
from cmcgns.training.bank_health import bank_warning, never_started, starts_too_late
from cmcgns.training.checkpoint import Progress, hand_over, keep_best, load_optimizer, save_checkpoint
from cmcgns.training.journal import Journal
from cmcgns.training.launch import Interrupted, Interruption
from cmcgns.training.run_folder import RunFolder
from cmcgns.training.step import (
    NonFiniteLoss,
    build_optimizer,
    check_recent,
    learning_rate,
    set_learning_rate,
    training_step,
)
from cmcgns.training.task import Task
from cmcgns.training.validate import validate

logger = logging.getLogger(__name__)

STAGES: tuple[Stage, ...] = ("alignment", "reconstruction")
_EPOCH, _STEP = 1, 2  # what a seed is mixed for


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
        progress: where the run stands.
        resume_from: checkpoint whose optimiser state is still to be loaded.
    """

    fabric: Any
    task: Task
    recipe: Recipe
    train: PairDataset
    validation: PairDataset
    folder: RunFolder
    journal: Journal
    progress: Progress
    resume_from: Path | None = None

    def run(self) -> None:
        """Run all stages from where the progress stands.

        Raises:
            Interrupted: after a signal, with everything saved.
            NonFiniteLoss: with the study ids.
        """
        if self.progress.global_step == 0:
            self._warn_about_late_bank()
        with Interruption() as self.interruption:
            try:
                while self.progress.stage < len(STAGES):
                    self._run_stage(STAGES[self.progress.stage])
                    self.progress.stage += 1
                    self.progress.epoch = self.progress.step = 0
                    self.progress.best = {}
            finally:
                self.journal.console.end_stage()
        if warning := never_started(self.task.objective):
            self.journal.event(self.task.objective.stage, warning)

    def micro_steps(self) -> int:
        """Batches of an epoch."""
        return steps_per_epoch(len(self.train), self.recipe.training.batch_size, self.fabric.world_size)

    def steps(self) -> int:
        """Optimiser steps an epoch; the last one may have fewer micro-steps than the others."""
        return math.ceil(self.micro_steps() / self.recipe.training.accumulate)

    def _warn_about_late_bank(self) -> None:
        epochs = sum(getattr(self.recipe, stage).epochs for stage in STAGES)
        if warning := starts_too_late(self.task.objective, epochs * self.micro_steps()):
            self.journal.event(STAGES[0], warning)

    def _run_stage(self, stage: Stage) -> None:
        settings: StageSettings = getattr(self.recipe, stage)
        if settings.epochs == 0:
            return
        fresh = self.progress.epoch == 0 and self.progress.step == 0
        if stage == "reconstruction" and fresh and self.resume_from is None and self.recipe.alignment.epochs:
            self.journal.event(stage, hand_over(self.folder, self.task))
        self.task.set_stage(stage)
        module, optimizer = self.fabric.setup(self.task, build_optimizer(self.task, settings))
        if self.resume_from is not None:
            load_optimizer(self.resume_from, self.task, optimizer.optimizer)
            self.resume_from = None
        self.task.train()
        self.journal.console.start_stage(
            stage, settings.epochs * self.steps(), self.progress.epoch * self.steps() + self.progress.step
        )
        while self.progress.epoch < settings.epochs:
            self._run_epoch(stage, settings, module, optimizer)
        self.journal.console.end_stage()

    def _run_epoch(self, stage: Stage, settings: StageSettings, module: Any, optimizer: Any) -> None:
        training, progress = self.recipe.training, self.progress
        started, recent = self.task.objective.bank.is_started, []
        for batches in self._batches():
            done = progress.epoch * self.steps() + progress.step
            set_learning_rate(optimizer, learning_rate(settings, done, self.steps()))
            figures = training_step(
                self.fabric, module, self.task, optimizer, batches,
                seed=mix(training.seed, _STEP, progress.global_step), clip=training.clip,
            )  # fmt: skip
            progress.step += 1
            progress.global_step += 1
            recent.append((figures, [name for batch in batches for name in batch.study_ids]))
            if not started and self.task.objective.bank.is_started:
                started = True
                self.journal.event(stage, "the cluster bank started")
            logs = progress.global_step % training.log_every == 0
            due = progress.global_step % training.checkpoint_every == 0
            asked = self.interruption.agreed(self.fabric, together=logs or due)
            if logs or due or asked:
                check_recent(recent)
            self._log(stage, settings, figures if logs else None, done)
            if (due or asked) and progress.step < self.steps():  # the end of an epoch saves by itself
                self._checkpoint(optimizer)
                self._leave_if(asked)
        check_recent(recent)
        self._end_epoch(stage, settings, optimizer)

    def _batches(self) -> Iterator[list[Batch]]:
        """The micro-batches of every remaining step of the epoch, on the device."""
        training, progress = self.recipe.training, self.progress
        order = training_order(
            self.train,
            training.batch_size,
            mix(training.seed, _EPOCH, progress.stage, progress.epoch),
            start=progress.step * training.accumulate,
            rank=self.fabric.global_rank,
            ranks=self.fabric.world_size,
        )
        cuda = self.fabric.device.type == "cuda"
        lonely = 0
        loader = serve(make_loader(self.train, order, self.recipe.data.workers, pin_memory=cuda))
        for _ in range(self.steps() - progress.step):
            group = [batch for _, batch in zip(range(training.accumulate), loader, strict=False)]
            lonely += sum(int(batch.sentence_mask.sum()) < 2 for batch in group)  # still on the host
            yield [batch.to(self.fabric.device) for batch in group]
        if lonely and self.recipe.objective.weight_report > 0:
            logger.warning(
                "epoch %d: %d batches held fewer than two sentences, so L_report had nothing to contrast there",
                progress.epoch + 1, lonely,
            )  # fmt: skip

    def _end_epoch(self, stage: Stage, settings: StageSettings, optimizer: Any) -> None:
        progress, training = self.progress, self.recipe.training
        progress.epoch, progress.step = progress.epoch + 1, 0
        loss = 0.0
        if self.fabric.is_global_zero:
            with self.fabric.autocast():
                figures = validate(
                    self.task, self.validation, training.batch_size, training.recall_limit, self.fabric.device
                )
            self.journal.validation(stage, figures, settings.epochs)
            loss = figures["loss"]
            if stage == "alignment" and math.isfinite(loss):
                keep_best(self.folder, self.task, progress, figures)
            if warning := bank_warning(figures, self.task.objective.bank):
                self.journal.event(stage, warning)
        # All ranks have to hear of it, or the others would wait at the next barrier.
        if not math.isfinite(self.fabric.broadcast(loss)):
            raise NonFiniteLoss(f"the validation loss is not finite after {stage} epoch {progress.epoch}")
        self._checkpoint(optimizer)
        self._leave_if(self.interruption.agreed(self.fabric, together=True))
        self.journal.console.restart_clock()

    def _log(self, stage: Stage, settings: StageSettings, figures: Any, done: int) -> None:
        pairs = self.recipe.training.batch_size * self.recipe.training.accumulate * self.fabric.world_size
        if figures is None:
            self.journal.console.step(pairs, None)
            return
        values = dict(zip(figures, torch.stack(list(figures.values())).float().tolist(), strict=True))
        values["learning_rate"] = learning_rate(settings, done, self.steps())
        self.journal.console.step(pairs, values)
        self.journal.train(stage, values)

    def _checkpoint(self, optimizer: Any) -> None:
        if self.fabric.is_global_zero:
            self.journal.sync()
            save_checkpoint(
                self.folder.state,
                self.task,
                optimizer.optimizer,
                self.progress,
                self.recipe.training.keep_checkpoints,
            )
        self.fabric.barrier()

    def _leave_if(self, asked: int) -> None:
        if asked:
            raise Interrupted(
                asked, f"stopped at step {self.progress.global_step}; everything is saved: go on with --resume"
            )
