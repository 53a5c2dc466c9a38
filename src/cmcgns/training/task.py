"""The task of a run: model and objective as one module, and the weights that Stage II starts with."""

import logging

import torch
from torch import nn

from cmcgns.common.errors import UserError
from cmcgns.data.pairs.batch import Batch
from cmcgns.models.freeze import train_only
from cmcgns.models.image_encoder import ImageEncoder
from cmcgns.models.model import ImageReportModel
from cmcgns.models.report_encoder import ReportEncoder
from cmcgns.objectives.objective import Figures, Objective, Stage, find_objective
from cmcgns.settings.config import Recipe, ReportEncoderSettings
from cmcgns.training.checkpoint import TrainingState, load_weights, save_weights
from cmcgns.training.run_folder import RunFolder

logger = logging.getLogger(__name__)


class PretrainingTask(nn.Module):
    """What is trained, wrapped for several ranks and saved.

    Attributes:
        terms: names of the losses of the last batch, `loss` the first.
    """

    terms: tuple[str, ...] = ("loss",)

    def __init__(self, model: ImageReportModel, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective
        self.set_stage("alignment")

    def set_stage(self, stage: Stage) -> None:
        """Enter a stage: freeze what it does not train."""
        self.objective.stage = stage
        train_only(self, self.objective.trainable_parts(self.model, stage))

    @property
    def training_only(self) -> tuple[str, ...]:
        """Beginnings of the names of what the weights of a finished run lack."""
        return tuple(f"objective.{name}" for name in self.objective.training_only)

    def forward(self, batch: Batch, seed: int = 0) -> tuple[Figures, Figures]:
        """Losses and metrics of a batch, as :class:`cmcgns.objectives.objective.Objective` says."""
        losses, metrics = self.objective(self.model, batch, seed)
        self.terms = tuple(dict.fromkeys(("loss", *losses)))
        return losses, metrics


def build_task(
    recipe: Recipe,
    vocabulary: int,
    report_config: dict[str, object] | None = None,
    load_weights: bool = True,
    for_training: bool = True,
) -> PretrainingTask:
    """Build model and objective from settings.

    Args:
        recipe: the settings.
        vocabulary: size of the tokenizer.
        report_config: Hugging Face configuration of a saved report encoder.
        load_weights: false when a checkpoint will fill the parameters.
        for_training: false for a finished run, which lacks what only training needs.
    """
    size = recipe.data.image_size
    image_encoder = ImageEncoder(recipe.image_encoder, size, load_weights)
    report_encoder = ReportEncoder(recipe.report_encoder, vocabulary, recipe.data.max_tokens, report_config)
    model = ImageReportModel(image_encoder, report_encoder, recipe.objective.dim)
    objective = find_objective(recipe.objective)(recipe.objective, image_encoder.grid, size, recipe.training.seed)
    if for_training:
        objective.attach(model)
    return PretrainingTask(model, objective)


def try_out(recipe: Recipe) -> PretrainingTask:
    """Model and objective without memory, weights or a download, to find out whether there can be such.

    Raises:
        UserError: what the settings alone do not tell, such as a mask that this encoder's grid does not allow.
    """
    small = recipe.model_copy(update={"report_encoder": ReportEncoderSettings()})
    with torch.device("meta"):
        return build_task(small, vocabulary=2, load_weights=False)


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
