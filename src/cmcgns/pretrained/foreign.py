"""Encoders of other programs, as the transformers library saves them: image-text pairs and image encoders alone."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmcgns.common.errors import UserError, one_line, shortened
from cmcgns.models.image_encoder import ImageEncoder
from cmcgns.models.report_encoder import positions
from cmcgns.objectives.objective import By, MapKind
from cmcgns.pretrained.arguments import check_texts
from cmcgns.pretrained.embed import BATCH, Floats
from cmcgns.pretrained.foreign_files import Preprocessing, read_preprocessing, read_settings, square_side
from cmcgns.pretrained.foreign_weights import has_text, load_model
from cmcgns.pretrained.model import Pretrained
from cmcgns.settings.config import DataSettings, Recipe
from cmcgns.training.joint_scores import JointScores

logger = logging.getLogger(__name__)


class ForeignPair(Pretrained):
    """An image-text pair of another program: a global score, and a map of what each patch alone would be.

    Args:
        model: transformers module with `get_image_features` and `get_text_features`.
        tokenizer: that belongs to it.
        encoder: its image tower.
        preprocessing: of its images.
    """

    def __init__(self, model: Any, tokenizer: Any, encoder: ImageEncoder, preprocessing: Preprocessing) -> None:
        # No super().__init__: there is no task and no objective, and whatever needs one `lacks` refuses.
        self.pair, self.tokenizer = model.eval().requires_grad_(False), tokenizer
        self.task: Any = nn.ModuleDict({"pair": model, "encoder": encoder})  # what is moved and hashed
        data = DataSettings(image_size=preprocessing.size, resize=preprocessing.resize)
        self.recipe, self.scores = Recipe(name=type(model).__name__, data=data), JointScores("pooled")

    @property
    def method(self) -> None:
        """None: no objective of this package."""
        return

    @property
    def temperature(self) -> float:
        """That divides the cosines of images and texts."""
        scale = getattr(self.pair, "logit_scale", None)
        return 1.0 if scale is None else float((-scale).exp())

    def check_global(self, function: str) -> None:
        """A pair was trained for nothing else."""

    def lacks(self, by: By) -> str:
        """Why images and texts cannot be scored so; empty if they can."""
        return "" if by == "global" else "weights of another program have a global score alone"

    def lacks_map(self, kind: MapKind) -> str:
        """Why there is no such map; empty if there is."""
        return "" if kind == "pooled" else "of weights of another program there is the pooled map alone"

    def spread(self, by: By) -> float:  # noqa: ARG002
        """What a difference of two scores is divided by before it becomes a probability."""
        return self.temperature

    @torch.no_grad()
    def embed_tensors(self, images: Tensor) -> Floats:
        """(B, 3, H, W), normalised as the weights want it -> (B, D) unit vectors."""
        found = self.pair.get_image_features(pixel_values=images.to(self.device)).pooler_output
        embedded: Floats = F.normalize(found.float(), dim=-1).cpu().numpy()
        return embedded

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str], batch_size: int = BATCH) -> tuple[Tensor, Tensor]:
        """(K, D) unit vectors, twice: a text as a whole stands for its sentences too.

        Raises:
            UserError: no string, or a text without a letter or digit.
        """
        check_texts(texts, "embed_text: text {}")
        for number, text in enumerate(texts):
            if not any(map(str.isalnum, text)):
                raise UserError(f"embed_text: text {number} ({text!r}) holds no words")
        longest = _longest(self.pair, self.tokenizer)
        whole = self.tokenizer(list(texts), verbose=False)["input_ids"]
        if cut := sum(len(each) > longest for each in whole):
            logger.warning("%d of %d texts have more than %d word pieces: cut", cut, len(texts), longest)
        starts = range(0, len(texts), batch_size)
        encoded = torch.cat([self._encode(texts[start : start + batch_size], longest) for start in starts])
        return encoded, encoded

    def _encode(self, texts: Sequence[str], longest: int) -> Tensor:
        given = self.tokenizer(
            list(texts),
            # SigLIP reads the embedding of the last place, padded in training.
            padding="max_length" if "siglip" in self.pair.config.model_type else True,
            truncation=True,
            max_length=longest,
            return_tensors="pt",
        ).to(self.device)
        return F.normalize(self.pair.get_text_features(**given).pooler_output.float(), dim=-1)

    @torch.no_grad()
    def patch_maps(self, tokens: Tensor, phrases: tuple[Tensor, Tensor], kind: MapKind) -> Tensor:
        """(B, P, C) tokens and phrases -> (B, K, P) cosines of each patch, pooled and projected alone."""
        assert kind == "pooled"
        patches = F.normalize(pool_alone(self.pair, tokens).float(), dim=-1)
        return phrases[1] @ patches.transpose(1, 2)


def pool_alone(pair: Any, tokens: Tensor) -> Tensor:
    """(B, P, C) last hidden states -> (B, P, D): what the pair would make of an image with that token alone.

    For CLIP and pairs of a ViT what becomes of the class token becomes of every patch; SigLIP's head attends to it.
    """
    vision, alone = pair.vision_model, tokens.flatten(0, 1)[:, None]
    if (head := getattr(vision, "head", None)) is not None:
        found = head(alone)
    elif (norm := getattr(vision, "post_layernorm", None)) is not None:
        found = norm(alone[:, 0])
    elif (pooler := getattr(vision, "pooler", None)) is not None:
        found = pooler(alone)
    else:
        found = alone[:, 0]
    projection = getattr(pair, "visual_projection", None)
    found = found if projection is None else projection(found)
    pooled: Tensor = found.unflatten(0, tokens.shape[:2])
    return pooled


class TransformersBody(nn.Module):
    """A vision tower such as CLIP's, SigLIP's, ViT or DINOv2, whose tokens are taken without its class token.

    Args:
        vision: a transformers module that takes `pixel_values`.
        file: its configuration, for messages.

    Attributes:
        depth: how many blocks it has.
        channels: of the images, 1 or 3.
        own_size: side of the images that it takes; None: of any.

    Raises:
        UserError: patches that are no squares, no blocks, or images that gray ones cannot be made to.
    """

    def __init__(self, vision: Any, file: Path) -> None:
        super().__init__()
        self.vision, config = vision, vision.config
        patch, self.depth, self.channels = (
            square_side(config.patch_size),
            config.num_hidden_layers,
            config.num_channels,
        )
        if patch is None or patch < 1:
            raise UserError(f"{file}: patch_size {shortened(config.patch_size)}: only square patches are supported")
        if self.depth < 1:
            raise UserError(f"{file}: num_hidden_layers {self.depth}: there are no blocks to take maps from")
        if self.channels not in (1, 3):
            raise UserError(
                f"{file}: num_channels {self.channels}: images are gray here, in 1 channel or repeated in 3"
            )
        self.patch = patch
        self._interpolates = "interpolate_pos_encoding" in inspect.signature(vision.forward).parameters
        # Those that are not asked to interpolate do so by themselves.
        self.own_size = square_side(config.image_size) if self._interpolates else None
        if self._interpolates and self.own_size is None:
            raise UserError(f"{file}: image_size {shortened(config.image_size)}: only square images are supported")

    def forward_features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, h, w) last hidden state of the patches."""
        return self._as_map(images, self._outputs(images).last_hidden_state)

    def forward_intermediates(
        self, images: Tensor, indices: list[int], intermediates_only: bool = True, output_fmt: str = "NCHW"
    ) -> list[Tensor]:
        """(B, 3, H, W) -> (B, C, h, w) hidden states behind some blocks, counted from 0."""
        assert intermediates_only
        assert output_fmt == "NCHW"
        states = self._outputs(images, output_hidden_states=True).hidden_states
        return [self._as_map(images, states[index + 1]) for index in indices]

    def _outputs(self, images: Tensor, **options: Any) -> Any:
        if self._interpolates and images.shape[-1] != self.own_size:
            options["interpolate_pos_encoding"] = True
        return self.vision(pixel_values=images, return_dict=True, **options)

    def _as_map(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Patches come last, behind class and register tokens."""
        rows, columns = (side // self.patch for side in images.shape[-2:])
        patches = tokens[:, tokens.shape[1] - rows * columns :]
        maps: Tensor = patches.transpose(1, 2).unflatten(2, (rows, columns))
        return maps


def open_transformers(folder: Path) -> tuple[ImageEncoder, Preprocessing, ForeignPair | None]:
    """What a folder of the transformers library holds: its image tower, and the pair if it has a text tower.

    Raises:
        UserError: no such folder, files that are missing or do not fit, or no model that can be judged as it is.
    """
    model = load_model(folder)
    body = TransformersBody(model.vision_model if has_text(model) else model, folder / "config.json")
    preprocessing = read_preprocessing(folder, body.channels)
    size, own = preprocessing.size, body.own_size
    if own is not None and size != own:
        raise UserError(
            f"{preprocessing.file}: images of {size} px do not fit config.json, whose model takes image_size {own}; "
            "edit the one that is wrong"
        )
    logger.info("%s: images become squares as for every encoder, whatever else %s says", folder, preprocessing.file)
    encoder = ImageEncoder.of(body, channels=body.channels, image_size=size)
    if not has_text(model):
        return encoder, preprocessing, None
    pair = ForeignPair(model, _read_tokenizer(folder, model.config.text_config.vocab_size), encoder, preprocessing)
    _try(pair, torch.zeros(1, body.channels, size, size), folder)
    return encoder, preprocessing, pair


def _try(pair: ForeignPair, images: Tensor, folder: Path) -> None:
    """Compare an image with a text, so that what does not work is known before anything is judged."""
    try:
        image, text = pair.embed_tensors(images), pair.encode_texts(["No finding."])[0]
    except Exception as error:  # of towers that do not give what was asked for
        raise UserError(
            f"{folder}: its model opens, but does not take an image and a text; fetch config.json again, or undo "
            f"what was edited ({one_line(error)})"
        ) from error
    if image.shape != tuple(text.shape):
        raise UserError(
            f"{folder}: config.json makes {image.shape[1]} numbers of an image and {text.shape[1]} of a text, which "
            "do not compare"
        )


def _read_tokenizer(folder: Path, vocabulary: int) -> Any:
    """The tokenizer of a text tower that knows so many word pieces."""
    from transformers import AutoTokenizer

    if (file := folder / "tokenizer_config.json").is_file():
        read_settings(file)  # refused if it asks for code
    try:
        # nothing is fetched: local_files_only
        found = AutoTokenizer.from_pretrained(  # nosec B615
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # whatever the library raises of files that are missing or do not fit
        raise UserError(f"{folder}: its tokenizer cannot be opened: {one_line(error)}") from error
    ids = set(found.get_vocab().values())
    # Where the vocabulary's file is missing, the library makes a tokenizer to which all words are alike.
    if not ids - set(found.all_special_ids):
        raise UserError(f"{folder}: its tokenizer knows no word piece: save tokenizer.json too")
    if max(ids) >= vocabulary:
        raise UserError(
            f"{folder}: its tokenizer has word pieces up to number {max(ids)}, but the text tower knows {vocabulary} "
            "(vocab_size): they do not belong together; save the tokenizer that the weights were trained with"
        )
    if found.pad_token is None:
        raise UserError(f"{folder}: its tokenizer names no pad_token: texts of several lengths need one")
    if not isinstance(found.model_max_length, int) or found.model_max_length < 1:
        raise UserError(f"{folder}: its tokenizer has model_max_length {found.model_max_length!r}, no count")
    return found


def _longest(pair: Any, tokenizer: Any) -> int:
    """Word pieces of the longest text that the text tower reads."""
    limit = positions(getattr(pair, "text_model", pair))
    return int(min(limit or tokenizer.model_max_length, tokenizer.model_max_length))
