"""Using a finished run: `cmcgns.load(run)`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cmcgns.config import Recipe
from cmcgns.data.dataset import normalise_pixels
from cmcgns.data.images import centre_crop, read_image
from cmcgns.data.report_tokens import tokenize_reports
from cmcgns.data.tokenizer import load_tokenizer
from cmcgns.errors import UserError
from cmcgns.task import Task, build_task
from cmcgns.training.checkpoint import load_weights
from cmcgns.training.run_folder import RunFolder

Floats = NDArray[np.float32]


class Pretrained:
    """A pretrained pair of encoders, frozen and in eval mode.

    Attributes:
        recipe: settings of the run.
        task: model and objective.
        tokenizer: transformers tokenizer.
    """

    def __init__(self, task: Task, tokenizer: Any, recipe: Recipe) -> None:
        self.task, self.tokenizer, self.recipe = task.eval().requires_grad_(False), tokenizer, recipe

    @property
    def image_encoder(self) -> nn.Module:
        """The plain timm module; it takes (B, channels, H, W) in the range [-1, 1]."""
        return self.task.model.image_encoder.body  # type: ignore[no-any-return]

    def images(self, paths: Sequence[str | Path]) -> torch.Tensor:
        """Files -> (n, 1, H, W) as the encoder wants them: resized, padded, cropped at the centre, in [-1, 1].

        Raises:
            UserError: unreadable file.
        """
        data = self.recipe.data
        pixels = np.stack([read_image(Path(path), data.resize) for path in paths])
        return normalise_pixels(centre_crop(pixels, data.image_size))[:, None]

    @torch.no_grad()
    def embed_image(self, paths: Sequence[str | Path], batch_size: int = 64) -> Floats:
        """Embed image files.

        Args:
            paths: PNG or JPEG files.
            batch_size: files at a time.

        Returns:
            (n, D) unit vectors.

        Raises:
            UserError: no path, or an unreadable file.
        """
        _refuse_string(paths, "embed_image")
        model, device = self.task.model, self.device
        parts = []
        for start in range(0, len(paths), batch_size):
            images = self.images(paths[start : start + batch_size]).to(device)
            parts.append(model.pool_image(model.image_encoder.tokens(images)).cpu())
        return torch.cat(parts).numpy()

    @torch.no_grad()
    def embed_text(self, texts: Sequence[str], batch_size: int = 64) -> Floats:
        """Embed reports, sentences or prompts.

        Args:
            texts: one or more sentences each; what is longer than in training is cut, with a warning.
            batch_size: texts at a time.

        Returns:
            (n, D) unit vectors.

        Raises:
            UserError: no text, or one without a letter or digit.
        """
        _refuse_string(texts, "embed_text")
        data = self.recipe.data
        tokens = tokenize_reports(texts, self.tokenizer, data.max_tokens, data.max_sentences)
        empty = np.flatnonzero(np.diff(tokens.sentence_offsets) == 0)
        if len(empty):
            raise UserError(f"embed_text: text {empty[0]} ({texts[empty[0]]!r}) holds no words")
        parts = []
        for start in range(0, len(texts), batch_size):
            rows = np.arange(start, min(start + batch_size, len(texts)))
            batch = {name: torch.from_numpy(a).to(self.device) for name, a in tokens.padded(rows).items()}
            _, report = self.task.model.encode_report(
                batch["token_ids"], batch["token_mask"], batch["token_sentence"], batch["sentence_mask"]
            )
            parts.append(report.cpu())
        return torch.cat(parts).numpy()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.task.parameters()).device


def load(run: str | Path, device: str = "cpu") -> Pretrained:
    """Load a finished run.

    Args:
        run: run folder.
        device: where to put the weights.

    Raises:
        UserError: no run folder, not finished, or weights that do not fit its settings.
    """
    import json

    folder = RunFolder(Path(run))
    recipe = folder.read_recipe()
    if not folder.model.is_file():
        raise UserError(f"{folder.path}: model.safetensors is missing; finish the run with --resume")
    tokenizer = load_tokenizer(str(folder.tokenizer))
    config = json.loads(folder.report_encoder.read_text("utf-8"))
    task = build_task(recipe, len(tokenizer), config, load_weights=False)
    load_weights(folder.model, task)
    return Pretrained(task.to(device), tokenizer, recipe)


def _refuse_string(values: Any, function: str) -> None:
    if isinstance(values, str | Path):
        raise UserError(f"{function} takes a list, for example {function}([{str(values)!r}])")
    if len(values) == 0:
        raise UserError(f"{function} got an empty list")
