"""A finished run in use: `cmcgns.load(run)`, and the same encoders with random weights."""

from __future__ import annotations

from pathlib import Path

import torch

from cmcgns.common.errors import UserError, one_line
from cmcgns.data.reports.tokenizer import load_saved_tokenizer
from cmcgns.pretrained.model import Pretrained
from cmcgns.training.checkpoint import load_weights
from cmcgns.training.joint_scores import JointScores
from cmcgns.training.run_folder import RunFolder
from cmcgns.training.task import build_task


def load(run: str | Path, device: str = "cpu") -> Pretrained:
    """A finished run in use, frozen and in eval mode; `trainable_image_encoder` gives a copy to train.

    Args:
        run: run folder.
        device: where to put the weights.

    Raises:
        UserError: no run folder, not finished, weights that do not fit its settings, or no such device.
    """
    if not isinstance(run, str | Path):
        raise UserError(f"load takes the path of a run folder, not {type(run).__name__}")
    folder = RunFolder(Path(run))
    recipe = folder.read_recipe()
    if not folder.model.is_file():
        raise UserError(f"{folder.path}: model.safetensors is missing; finish the run with --resume")
    tokenizer = load_saved_tokenizer(folder.tokenizer)
    config = folder.read_report_config()
    task = build_task(recipe, len(tokenizer), config, load_weights=False, for_training=False)
    try:
        load_weights(folder.model, task)
    except UserError as error:
        raise UserError(f"{error}{folder.other_version()}") from None
    try:
        task.to(device)
    except (RuntimeError, AssertionError) as error:  # what torch says of devices that are not there
        raise UserError(f"load: the device {device} cannot be used: {one_line(error)}") from None
    model = Pretrained(task, tokenizer, recipe)
    model.folder, model.scores = folder.path, JointScores.read(folder)
    return model


def random_twin(model: Pretrained, seed: int | None = None) -> Pretrained:
    """The same architecture and tokenizer with random weights.

    Args:
        model: the run.
        seed: of the weights; by default another one than the run's.
    """
    torch.manual_seed(model.recipe.training.seed + 1 if seed is None else seed)
    settings = model.recipe.image_encoder.model_copy(update={"weights": None})
    recipe = model.recipe.model_copy(update={"image_encoder": settings})
    config = model.task.model.report_encoder.config
    task = build_task(recipe, len(model.tokenizer), config, for_training=False)
    return Pretrained(task, model.tokenizer, recipe)
