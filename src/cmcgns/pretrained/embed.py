"""A pretrained pair of encoders and its embeddings of radiographs and texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cmcgns.common.errors import UserError
from cmcgns.data.images.place import centre_crop
from cmcgns.data.images.read import Picture, read_image
from cmcgns.data.pairs.dataset import normalise_pixels
from cmcgns.data.reports.tokens import tokenize_reports
from cmcgns.objectives.cmcgns import CMCGNS
from cmcgns.settings.config import Recipe
from cmcgns.training.task import PretrainingTask

Floats = NDArray[np.float32]
BATCH = 64  # images or texts at a time


class Embedder:
    """A pretrained pair of encoders, frozen and in eval mode: embeddings of pictures and texts.

    Attributes:
        recipe: settings of the run.
        task: model and objective.
        tokenizer: transformers tokenizer.
        folder: of the run; None for weights that are no run's.
    """

    folder: Path | None = None

    def __init__(self, task: PretrainingTask, tokenizer: Any, recipe: Recipe) -> None:
        self.task, self.tokenizer, self.recipe = task.eval().requires_grad_(False), tokenizer, recipe

    @property
    def image_encoder(self) -> nn.Module:
        """The plain timm module; it takes (B, channels, H, W) in the range [-1, 1]."""
        return self.task.model.image_encoder.body  # type: ignore[no-any-return]

    def images(self, pictures: Sequence[Picture]) -> torch.Tensor:
        """Radiographs -> (n, 1, H, W) as the encoder wants them: resized, padded, cropped at the centre, in [-1, 1].

        Raises:
            UserError: unreadable picture.
        """
        data = self.recipe.data
        pixels = np.stack([read_image(picture, data.resize) for picture in pictures])
        return normalise_pixels(centre_crop(pixels, data.image_size))[:, None]

    @torch.no_grad()
    def embed_tensors(self, images: torch.Tensor) -> Floats:
        """(B, channels, H, W) as :meth:`images` gives them, one batch -> (B, D) unit vectors."""
        model = self.task.model
        embedded: Floats = model.pool_image(model.image_encoder.tokens(images.to(self.device))).cpu().numpy()
        return embedded

    def embed_image(self, paths: Sequence[Picture], batch_size: int = BATCH) -> Floats:
        """Embed radiographs.

        Args:
            paths: PNG, JPEG or DICOM files, arrays or Pillow images (:data:`cmcgns.data.images.read.Picture`).
            batch_size: pictures at a time.

        Returns:
            (n, D) unit vectors.

        Raises:
            UserError: no picture, or an unreadable one.
        """
        _refuse_single(paths, "embed_image")
        starts = range(0, len(paths), batch_size)
        return np.concatenate(
            [self.embed_tensors(self.images(paths[start : start + batch_size])) for start in starts]
        )

    def embed_text(self, texts: Sequence[str], batch_size: int = BATCH) -> Floats:
        """Embed reports, sentences or prompts.

        Args:
            texts: one or more sentences each; what is longer than in training is cut, with a warning.
            batch_size: texts at a time.

        Returns:
            (n, D) unit vectors.

        Raises:
            UserError: no text, or one without a letter or digit.
        """
        _refuse_single(texts, "embed_text")
        return self.encode_texts(texts, batch_size)[1].cpu().numpy()

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str], batch_size: int = BATCH) -> tuple[torch.Tensor, torch.Tensor]:
        """Both embeddings of each text, where the weights are: the mean of its sentences f_R, and the global one.

        Args:
            texts: as for :meth:`embed_text`.
            batch_size: texts at a time.

        Returns:
            (n, D), and (n, D) unit vectors.

        Raises:
            UserError: a text without a letter or digit.
        """
        data = self.recipe.data
        tokens = tokenize_reports(texts, self.tokenizer, data.max_tokens, data.max_sentences)
        empty = np.flatnonzero(np.diff(tokens.sentence_offsets) == 0)
        if len(empty):
            raise UserError(f"embed_text: text {empty[0]} ({texts[empty[0]]!r}) holds no words")
        parts = []
        for start in range(0, len(texts), batch_size):
            rows = np.arange(start, min(start + batch_size, len(texts)))
            batch = {name: torch.from_numpy(a).to(self.device) for name, a in tokens.padded(rows).items()}
            mask = batch["sentence_mask"]
            sentences, report = self.task.model.encode_report(
                batch["token_ids"], batch["token_mask"], batch["token_sentence"], mask
            )
            parts.append((sentences.sum(1) / mask.sum(1, keepdim=True), report))  # rows of padding are 0
        local, pooled = zip(*parts, strict=True)
        return torch.cat(local), torch.cat(pooled)

    @property
    def temperature(self) -> float:
        """That divides the cosines of images and reports: what L_global ended with."""
        return self.task.objective.temperature

    @property
    def method(self) -> CMCGNS | None:
        """The objective with its bank, attention and decoder; None if the run was made with another than CM-CGNS."""
        objective = self.task.objective
        return objective if isinstance(objective, CMCGNS) else None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.task.parameters()).device


def _refuse_single(values: Any, function: str) -> None:
    if isinstance(values, str | Path):
        raise UserError(f"{function} takes a list, for example {function}([{str(values)!r}])")
    if not hasattr(values, "__len__"):
        raise UserError(f"{function} takes a list, not a single {type(values).__name__}")
    if len(values) == 0:
        raise UserError(f"{function} got an empty list")
