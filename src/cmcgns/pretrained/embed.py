"""A pretrained pair of encoders and its embeddings of radiographs and texts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cmcgns.common.errors import UserError
from cmcgns.data.images.place import RESAMPLING, centre_crop
from cmcgns.data.images.read import Picture, read_image
from cmcgns.data.pairs.dataset import normalise_pixels
from cmcgns.data.reports.tokens import ReportTokens, tokenize_reports
from cmcgns.models.model import encode_reports, mean_and_global
from cmcgns.pretrained.arguments import as_list, check_texts
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
    """

    def __init__(self, task: PretrainingTask, tokenizer: Any, recipe: Recipe) -> None:
        self.task, self.tokenizer, self.recipe = task.eval().requires_grad_(False), tokenizer, recipe
        body = task.model.image_encoder.body
        body.pretrained_cfg = body.default_cfg = timm_config(recipe, body.pretrained_cfg)

    @property
    def image_encoder(self) -> nn.Module:
        """The plain timm module, frozen and in eval mode; it takes (B, channels, H, W) in the range [-1, 1].

        Its `pretrained_cfg` says how the run prepared its images. :meth:`trainable_image_encoder` gives one to train.
        """
        return self.task.model.image_encoder.body  # type: ignore[no-any-return]

    def trainable_image_encoder(self) -> nn.Module:
        """A copy of :attr:`image_encoder` to go on training with: in train mode, every parameter wants a gradient."""
        return deepcopy(self.image_encoder).requires_grad_(True).train()

    def images(self, pictures: Sequence[Picture], first: int = 0) -> torch.Tensor:
        """Radiographs -> (n, 1, H, W) as the encoder wants them: resized, padded, cropped at the centre, in [-1, 1].

        Args:
            pictures: files, arrays or Pillow images.
            first: what the first of them is counted as in messages.

        Raises:
            UserError: unreadable picture; names it by its number.
        """
        data = self.recipe.data
        pixels = np.empty((len(pictures), data.resize, data.resize), dtype=np.uint8)
        for number, picture in enumerate(pictures):
            try:
                pixels[number] = read_image(picture, data.resize)
            except UserError as error:
                raise UserError(f"picture {first + number}: {error}") from error
        return normalise_pixels(centre_crop(pixels, data.image_size))[:, None]

    def batches(self, pictures: Sequence[Picture], batch_size: int = BATCH) -> Iterator[torch.Tensor]:
        """Radiographs, a few at a time, as :meth:`images` gives them."""
        for start in range(0, len(pictures), batch_size):
            yield self.images(pictures[start : start + batch_size], start)

    @torch.no_grad()
    def embed_tensors(self, images: torch.Tensor) -> Floats:
        """(B, channels, H, W) as :meth:`images` gives them, one batch -> (B, D) unit vectors."""
        model = self.task.model
        embedded: Floats = model.pool_image(model.image_encoder.tokens(images.to(self.device))).cpu().numpy()
        return embedded

    def check_global(self, function: str) -> None:
        """Raise where nothing has trained the global embeddings: they would be noise."""
        if reason := self.task.objective.lacks_score("global"):
            raise UserError(f"{function}: {reason}; model.image_encoder gives what the run has trained")

    def embed_image(self, paths: Sequence[Picture], batch_size: int = BATCH) -> Floats:
        """Embed radiographs.

        Args:
            paths: PNG, JPEG or DICOM files, arrays or Pillow images (:data:`cmcgns.data.images.read.Picture`).
            batch_size: pictures at a time.

        Returns:
            (n, D) unit vectors.

        Raises:
            UserError: no picture, or an unreadable one; a run that trained no embeddings of whole images.
        """
        self.check_global("embed_image")
        pictures = as_list(paths, "embed_image", batch_size)
        return np.concatenate([self.embed_tensors(images) for images in self.batches(pictures, batch_size)])

    def embed_text(self, texts: Sequence[str], batch_size: int = BATCH) -> Floats:
        """Embed reports, sentences or prompts.

        Args:
            texts: one or more sentences each; what is longer than in training is cut, with a warning.
            batch_size: texts at a time.

        Returns:
            (n, D) unit vectors.

        Raises:
            UserError: no text, or one without a letter or digit; a run that trained no embeddings of whole reports.
        """
        self.check_global("embed_text")
        return self.encode_texts(as_list(texts, "embed_text", batch_size), batch_size)[1].cpu().numpy()

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str], batch_size: int = BATCH) -> tuple[torch.Tensor, torch.Tensor]:
        """Both embeddings of each text, where the weights are: the mean of its sentences f_R, and the global one.

        Args:
            texts: as for :meth:`embed_text`.
            batch_size: texts at a time.

        Returns:
            (n, D), and (n, D) unit vectors.

        Raises:
            UserError: no string, or a text without a letter or digit.
        """
        return mean_and_global(self.task.model, self._tokens(texts), batch_size)

    @torch.no_grad()
    def encode_sentences(
        self, texts: Sequence[str], batch_size: int = BATCH
    ) -> tuple[torch.Tensor, NDArray[np.intp]]:
        """f_R of every sentence as it is encoded within its text, where the weights are.

        Args:
            texts: n, as for :meth:`embed_text`.
            batch_size: texts at a time.

        Returns:
            (N, D), text by text, and (n,) how many sentences each text has.

        Raises:
            UserError: no string, or a text without a letter or digit.
        """
        tokens = self._tokens(texts)
        parts = [each.sentences[each.mask] for each in encode_reports(self.task.model, tokens, batch_size)]
        return torch.cat(parts), np.diff(tokens.sentence_offsets)

    def _tokens(self, texts: Sequence[str]) -> ReportTokens:
        """Word pieces of texts that hold words."""
        check_texts(texts, "embed_text: text {}")
        data = self.recipe.data
        tokens = tokenize_reports(texts, self.tokenizer, data.max_tokens, data.max_sentences)
        empty = np.flatnonzero(np.diff(tokens.sentence_offsets) == 0)
        if len(empty):
            raise UserError(f"embed_text: text {empty[0]} ({texts[empty[0]]!r}) holds no words")
        return tokens

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.task.parameters()).device


def timm_config(recipe: Recipe, before: dict[str, Any]) -> dict[str, Any]:
    """What `timm.data.resolve_model_data_config` reads of an encoder: how this run prepared its images.

    timm's mode `border` does the same but for the padding, which is gray there and black here.

    Args:
        recipe: of the run.
        before: what timm says of the architecture, from which only names of layers are taken.
    """
    data, channels = recipe.data, recipe.image_encoder.channels
    share = data.image_size / data.resize
    if math.floor(data.image_size / share) < data.resize:  # timm divides again and rounds down
        share = math.nextafter(share, 0)
    names = {key: before[key] for key in ("architecture", "classifier", "first_conv") if key in before}
    return names | {
        "input_size": (channels, data.image_size, data.image_size),
        "mean": (0.5,) * channels,
        "std": (0.5,) * channels,
        "interpolation": RESAMPLING.name.lower(),
        "crop_pct": share,
        "crop_mode": "border",
        "num_classes": 0,
    }
