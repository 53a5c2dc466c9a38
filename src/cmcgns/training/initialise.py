"""`--init RUN`: what a new run takes over from another one, and what any run starts with."""

import logging
from pathlib import Path
from typing import Any

import torch

from cmcgns.common.errors import UserError
from cmcgns.models.checked_tensors import read_tensors
from cmcgns.models.positions import interpolate_positions
from cmcgns.models.report_encoder import SCRATCH
from cmcgns.models.weights import below, check_keys
from cmcgns.settings.config import Recipe, ReportEncoderSettings
from cmcgns.settings.recipe import differences
from cmcgns.training.checkpoint import load_task
from cmcgns.training.data import PreparedData
from cmcgns.training.run_folder import RunFolder
from cmcgns.training.task import PretrainingTask, build_task

logger = logging.getLogger(__name__)


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


def load_initial_weights(task: PretrainingTask, recipe: Recipe, source: RunFolder) -> None:
    """Fill both encoders strictly, and of the objective what fits; the rest is named in the log.

    Position embeddings of another image size are interpolated. A temperature that the recipe changes, or holds fixed,
    is the recipe's.

    Raises:
        UserError: the run's encoders differ from the recipe's.
    """
    before = source.read_recipe()
    tensors, _ = read_tensors(source.model)
    wanted = task.state_dict()
    moved = interpolate_positions(tensors, wanted, task.model.image_encoder.grid)
    model = below(tensors, "model.")
    try:
        check_keys(model, task.model.state_dict(), f"--init {source.path}")
    except UserError as error:
        raise UserError(f"{error}{_way_out(before, recipe)}") from None
    task.model.load_state_dict(model)
    own = task.objective.kept_from(before.objective)
    wanted, given = task.objective.state_dict(), below(tensors, "objective.")
    fits = {
        name: value for name, value in given.items()
        if name in wanted and wanted[name].shape == value.shape and name.split(".")[0] not in own
    }  # fmt: skip
    task.objective.load_state_dict(wanted | fits)
    expected = (*(f"{name}." for name in own), *task.objective.training_only)  # not to be found there
    fresh = sorted(name for name in wanted if name not in fits and not name.startswith(expected))
    logger.info("weights from %s: both encoders, %d tensors of the objective", source.path, len(fits))
    for name, grids in moved.items():
        logger.info("  interpolated: %s, %s", name, grids)
    for name, reason in own.items():
        logger.info("  not taken over: %s: %s", name, reason)
    if fresh:
        logger.info("  new: %s", ", ".join(fresh))
    if recipe.image_encoder.weights is not None:
        logger.info("  not read: image_encoder.weights, because the run's weights are there already")


def _way_out(before: Recipe, now: Recipe) -> str:
    """What the recipe would have to say for the weights to fit."""
    there, here = (
        {
            "image_encoder": each.image_encoder.model_dump(exclude={"weights"}),
            "data": {"image_size": each.data.image_size},
            "objective": {"dim": each.objective.dim},
        }
        for each in (before, now)
    )
    changed = ", ".join(differences(there, here))
    return f"\n  The recipe differs from that run's in {changed}: set what that run has" if changed else ""


def first_task(
    recipe: Recipe, prepared: PreparedData, folder: RunFolder, latest: Path | None, init: Path | None
) -> PretrainingTask:
    """What training goes on with: a checkpoint, the weights of another run, or the recipe's own start."""
    if latest is not None:
        task = _build(recipe, prepared, folder.read_report_config())
        load_task(latest, task, verify=False)  # `find_start` has compared it
    elif init is not None:
        task = _build(recipe, prepared, initial_report_config(recipe.report_encoder, RunFolder(init)))
        load_initial_weights(task, recipe, RunFolder(init))
    else:
        task = _build(recipe, prepared)
    return task


def _build(recipe: Recipe, prepared: PreparedData, report_config: dict[str, Any] | None = None) -> PretrainingTask:
    """A task; with the configuration of a saved report encoder, it waits for weights of a run."""
    torch.manual_seed(recipe.training.seed)
    return build_task(recipe, len(prepared.tokenizer), report_config, load_weights=report_config is None)
