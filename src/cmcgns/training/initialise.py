"""The first weights of a run: the recipe's own start, another run (`--init`), or a checkpoint."""

import json
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from cmcgns.common.errors import UserError
from cmcgns.models.report_encoder import SCRATCH
from cmcgns.models.weights import check_keys
from cmcgns.settings.config import Recipe, ReportEncoderSettings
from cmcgns.training.checkpoint import load_task
from cmcgns.training.data import PreparedData
from cmcgns.training.run_folder import RunFolder
from cmcgns.training.task import Task, build_task

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
    config: dict[str, Any] = json.loads(source.report_encoder.read_text("utf-8"))
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


def load_initial_weights(task: Task, source: RunFolder) -> None:
    """Fill both encoders strictly, and of the objective what fits; the rest is named in the log.

    Raises:
        UserError: the run's encoders differ from the recipe's.
    """
    tensors = load_file(source.model)
    model = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    check_keys(dict(model), task.model.state_dict(), f"--init {source.path}")
    task.model.load_state_dict(model)
    wanted = task.objective.state_dict()
    given = {k.removeprefix("objective."): v for k, v in tensors.items() if k.startswith("objective.")}
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
) -> Task:
    """What training goes on with: a checkpoint, the weights of another run, or the recipe's own start."""
    if latest is not None:
        task = build_for(recipe, prepared, json.loads(folder.report_encoder.read_text("utf-8")))
        load_task(latest, task)
    elif init is not None:
        task = build_for(recipe, prepared, initial_report_config(recipe.report_encoder, RunFolder(init)))
        load_initial_weights(task, RunFolder(init))
    else:
        task = build_for(recipe, prepared)
    return task


def build_for(recipe: Recipe, prepared: PreparedData, report_config: dict[str, Any] | None = None) -> Task:
    """A task; with the configuration of a saved report encoder, it waits for weights of a run."""
    torch.manual_seed(recipe.training.seed)
    return build_task(recipe, len(prepared.tokenizer), report_config, load_weights=report_config is None)
