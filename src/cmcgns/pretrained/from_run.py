"""Pretrained encoders out of a run folder, and the same ones with random weights."""

import json
from pathlib import Path

import torch

from cmcgns.data.tokenizer import load_tokenizer
from cmcgns.errors import UserError
from cmcgns.pretrained.model import Pretrained
from cmcgns.task import build_task
from cmcgns.training.checkpoint import load_weights
from cmcgns.training.run_folder import RunFolder


def load(run: str | Path, device: str = "cpu") -> Pretrained:
    """Load a finished run.

    Args:
        run: run folder.
        device: where to put the weights.

    Raises:
        UserError: no run folder, not finished, or weights that do not fit its settings.
    """
    folder = RunFolder(Path(run))
    recipe = folder.read_recipe()
    if not folder.model.is_file():
        raise UserError(f"{folder.path}: model.safetensors is missing; finish the run with --resume")
    tokenizer = load_tokenizer(str(folder.tokenizer))
    config = json.loads(folder.report_encoder.read_text("utf-8"))
    task = build_task(recipe, len(tokenizer), config, load_weights=False)
    load_weights(folder.model, task)
    model = Pretrained(task.to(device), tokenizer, recipe)
    model.folder = folder.path
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
    return Pretrained(build_task(recipe, len(model.tokenizer), config), model.tokenizer, recipe)
