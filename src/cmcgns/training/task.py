"""The task of a run: model and objective as one module, and the weights that it and Stage II start with."""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cmcgns.common.errors import UserError
from cmcgns.data.pairs.batch import Batch
from cmcgns.models.freeze import train_only
from cmcgns.models.image_encoder import ImageEncoder
from cmcgns.models.model import ImageReportModel
from cmcgns.models.report_encoder import SCRATCH, ReportEncoder
from cmcgns.models.weights import below, check_keys
from cmcgns.objectives.objective import Figures, Objective, Stage, find_objective
from cmcgns.settings.config import Recipe, ReportEncoderSettings
from cmcgns.training.checkpoint import TrainingState, load_task, load_weights, save_weights
from cmcgns.training.data import PreparedData
from cmcgns.training.run_folder import RunFolder
from cmcgns.training.weights_file import read_tensors

logger = logging.getLogger(__name__)


class PretrainingTask(nn.Module):
    """What is trained, wrapped for several ranks and saved.

    Args:
        model: both encoders.
        objective: the losses and their own parameters.
    """

    def __init__(self, model: ImageReportModel, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective
        self.set_stage("alignment")

    def set_stage(self, stage: Stage) -> None:
        """Enter a stage: freeze what it does not train."""
        self.objective.stage = stage
        train_only(self, self.objective.trainable_parts(self.model, stage))

    def forward(self, batch: Batch, seed: int = 0) -> tuple[Figures, Figures]:
        """Losses and metrics of a batch, as :class:`cmcgns.objectives.objective.Objective` says."""
        return self.objective(self.model, batch, seed)  # type: ignore[no-any-return]


def build_task(
    recipe: Recipe, vocabulary: int, report_config: dict[str, object] | None = None, load_weights: bool = True
) -> PretrainingTask:
    """Build model and objective from settings.

    Args:
        recipe: the settings.
        vocabulary: size of the tokenizer.
        report_config: Hugging Face configuration of a saved report encoder.
        load_weights: false when a checkpoint will fill the parameters.
    """
    size = recipe.data.image_size
    image_encoder = ImageEncoder(recipe.image_encoder, size, load_weights)
    report_encoder = ReportEncoder(recipe.report_encoder, vocabulary, recipe.data.max_tokens, report_config)
    model = ImageReportModel(image_encoder, report_encoder, recipe.objective.dim)
    objective = find_objective(recipe.objective)(recipe.objective, image_encoder.grid, size, recipe.training.seed)
    return PretrainingTask(model, objective)


def check_source(source: RunFolder) -> None:
    """Refuse a folder that no finished run left behind.

    Raises:
        UserError: config.yaml or model.safetensors is missing.
    """
    source.read_recipe()
    if not source.model.is_file():
        raise UserError(f"--init {source.path}: model.safetensors is missing (the run did not finish)")


def initial_report_config(settings: ReportEncoderSettings, source: RunFolder) -> dict[str, Any]:
    """The report encoder's configuration in the run, with the dropout that the recipe asks for.

    Raises:
        UserError: the recipe asks for another report encoder.
    """
    config: dict[str, Any] = source.read_report_config()
    wanted, found = {"name": settings.name}, {"name": source.read_recipe().report_encoder.name}
    if settings.name == SCRATCH == found["name"]:
        names = {"layers": "num_hidden_layers", "width": "hidden_size", "heads": "num_attention_heads"}
        wanted |= {name: getattr(settings, name) for name in names}
        found |= {name: config[key] for name, key in names.items()}
        config |= dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), settings.dropout)
    differing = [f"report_encoder.{name}={found[name]}" for name in wanted if wanted[name] != found[name]]
    if differing:
        raise UserError(f"--init {source.path} has {', '.join(differing)}, but the recipe does not")
    return config


def load_initial_weights(task: PretrainingTask, source: RunFolder) -> None:
    """Fill both encoders strictly, and of the objective what fits; the rest is named in the log.

    Raises:
        UserError: the run's encoders differ from the recipe's.
    """
    tensors, _ = read_tensors(source.model)
    model = below(tensors, "model.")
    check_keys(dict(model), task.model.state_dict(), f"--init {source.path}")
    task.model.load_state_dict(model)
    wanted, given = task.objective.state_dict(), below(tensors, "objective.")
    # The bank belongs to one run's data and settings: half of its buffers would make no sense.
    fits = {
        k: v for k, v in given.items() if k in wanted and wanted[k].shape == v.shape and not k.startswith("bank.")
    }
    task.objective.load_state_dict(wanted | fits)
    fresh = sorted(k for k in wanted if k not in fits and not k.startswith("bank."))
    logger.info(
        "weights from %s: both encoders, %d tensors of the objective; the bank starts anew%s",
        source.path, len(fits), f"; new: {', '.join(fresh)}" if fresh else "",
    )  # fmt: skip


def first_task(
    recipe: Recipe, prepared: PreparedData, folder: RunFolder, latest: Path | None, init: Path | None
) -> PretrainingTask:
    """What training goes on with: a checkpoint, the weights of another run, or the recipe's own start."""
    if latest is not None:
        task = build_for(recipe, prepared, folder.read_report_config())
        load_task(latest, task)
    elif init is not None:
        task = build_for(recipe, prepared, initial_report_config(recipe.report_encoder, RunFolder(init)))
        load_initial_weights(task, RunFolder(init))
    else:
        task = build_for(recipe, prepared)
    return task


def build_for(recipe: Recipe, prepared: PreparedData, report_config: dict[str, Any] | None = None) -> PretrainingTask:
    """A task; with the configuration of a saved report encoder, it waits for weights of a run."""
    torch.manual_seed(recipe.training.seed)
    return build_task(recipe, len(prepared.tokenizer), report_config, load_weights=report_config is None)


def keep_best(folder: RunFolder, task: PretrainingTask, state: TrainingState, figures: dict[str, float]) -> None:
    """Save the weights if no epoch before has validated better.

    Args:
        folder: of the run.
        task: model and objective after the epoch.
        state: remembers the best value so far.
        figures: of the validation. `global` decides: the total jumps when the bank starts, so it cannot rank epochs.
    """
    value = figures.get("global", -float(state.epoch))
    if value <= state.best.get("global", float("inf")):  # of equal ones, such as all 0, the last
        state.best = {"global": value, "epoch": state.epoch}
        save_weights(folder.best, task, about=state.best)


def hand_over(folder: RunFolder, task: PretrainingTask) -> str:
    """Load the best weights of Stage I into the task; a sentence for the log.

    Raises:
        UserError: they are missing.
    """
    if not folder.best.is_file():
        raise UserError(f"{folder.best}: the best Stage I weights are missing; start again in another folder")
    had_started = task.objective.is_started
    best = load_weights(folder.best, task)
    message = f"weights of alignment epoch {best['epoch']} taken over"
    if had_started and not task.objective.is_started:
        message += f": they are older than {task.objective.late_part}'s start, so it starts anew"
    return message
