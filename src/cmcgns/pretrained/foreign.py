"""Encoders of other programs, as the transformers library saves them: image-text pairs and image encoders alone."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmcgns.common.errors import UserError, first_of, one_line
from cmcgns.models.image_encoder import ImageEncoder
from cmcgns.models.report_encoder import positions
from cmcgns.objectives.objective import By, MapKind
from cmcgns.pretrained.arguments import check_texts
from cmcgns.pretrained.embed import BATCH, Floats
from cmcgns.pretrained.model import Pretrained
from cmcgns.settings.config import DataSettings, Recipe
from cmcgns.training.joint_scores import JointScores

logger = logging.getLogger(__name__)
_CONFIG_BYTES = 2**20
_NAMED = 3  # tensors that a message names
_UNREAD = ("pooler.", "embeddings.mask_token")  # of an image tower alone: what its patches do not need


@dataclass(frozen=True)
class Preprocessing:
    """What `preprocessor_config.json` of a folder says.

    Attributes:
        size: side of the input in pixels.
        mean, std: of each channel, for pixels in [0, 1].
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def resize(self) -> int:
        """Long side of an image before the crop to `size`: 256 for 224, as for timm's models."""
        return round(256 * self.size / 224)


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
        vision: a transformers module that takes `pixel_values`; its configuration states a patch size.

    Attributes:
        depth: how many blocks it has.

    Raises:
        UserError: no patch size or no blocks, as of a convolutional network.
    """

    def __init__(self, vision: Any) -> None:
        super().__init__()
        self.vision = vision
        patch, depth = (getattr(vision.config, name, None) for name in ("patch_size", "num_hidden_layers"))
        if not isinstance(patch, int) or not isinstance(depth, int):
            raise UserError(
                f"{type(vision).__name__} states no patch_size and num_hidden_layers in its config.json: only vision "
                "transformers are opened so; for another architecture give timm's name of it, NAME@FOLDER"
            )
        self.patch, self.depth = patch, depth
        self._interpolates = "interpolate_pos_encoding" in inspect.signature(vision.forward).parameters

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
        side = getattr(self.vision.config, "image_size", None)
        if self._interpolates and images.shape[-1] != side:
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
        UserError: no such folder, files that are missing or do not fit, or no vision transformer.
    """
    from transformers import AutoModel

    preprocessing = _read_preprocessing(folder / "preprocessor_config.json")
    try:
        model, report = AutoModel.from_pretrained(  # nosec B615 # nothing is fetched: local_files_only
            str(folder), local_files_only=True, use_safetensors=None, dtype=torch.float32, trust_remote_code=False,
            output_loading_info=True,
        )  # fmt: skip
    except Exception as error:  # whatever the library raises of files that are missing or do not fit
        raise UserError(f"{folder}: transformers cannot open it: {one_line(error)}") from error
    has_text = hasattr(model, "get_text_features") and hasattr(model, "get_image_features")
    _check_weights(model, report, folder, unread=() if has_text else _UNREAD)
    body = TransformersBody(model.vision_model if has_text else model)
    encoder = ImageEncoder.of(body, channels=3, image_size=preprocessing.size)
    if not has_text:
        return encoder, preprocessing, None
    return encoder, preprocessing, ForeignPair(model, _read_tokenizer(folder), encoder, preprocessing)


def _check_weights(model: Any, report: Mapping[str, Any], folder: Path, unread: tuple[str, ...]) -> None:
    """Raise where a tensor would stay as it was drawn, or is not finite; `unread` ones begin so."""
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(unread))
    if missing:
        found = sorted(report["unexpected_keys"])
        others = f"; it has {', '.join(first_of(found, _NAMED))}, which the model has not" if found else ""
        raise UserError(
            f"{folder}: the weights lack {', '.join(first_of(missing, _NAMED))} of {type(model).__name__}{others}"
        )
    wrong = [name for name, value in model.state_dict().items() if not bool(value.isfinite().all())]
    if wrong:
        raise UserError(f"{folder}: the weights of {', '.join(first_of(wrong, _NAMED))} are not finite")


def _read_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        # nothing is fetched: local_files_only
        found = AutoTokenizer.from_pretrained(  # nosec B615
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # as above
        raise UserError(f"{folder}: its tokenizer cannot be opened: {one_line(error)}") from error
    # Where the vocabulary's file is missing, the library makes a tokenizer to which all words are alike.
    if not set(found.get_vocab().values()) - set(found.all_special_ids):
        raise UserError(f"{folder}: its tokenizer knows no word piece: save tokenizer.json too")
    if found.pad_token is None:
        raise UserError(f"{folder}: its tokenizer names no pad_token: texts of several lengths need one")
    if not isinstance(found.model_max_length, int) or found.model_max_length < 1:
        raise UserError(f"{folder}: its tokenizer has model_max_length {found.model_max_length!r}, no count")
    return found


def _read_preprocessing(file: Path) -> Preprocessing:
    try:
        with file.open("rb") as opened:
            content = json.loads(opened.read(_CONFIG_BYTES))
        size = content.get("crop_size") or content["size"]
        side = size if isinstance(size, int) else size.get("height") or size["shortest_edge"]
        mean, std = (tuple(map(float, content[name])) for name in ("image_mean", "image_std"))
    except FileNotFoundError:
        raise UserError(f"{file} is missing: it says how images are prepared; save the image processor too") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{file} does not say size (or crop_size), image_mean and image_std: {one_line(error)}"
        ) from None
    if not (isinstance(side, int) and 8 <= side <= 4096 and len(mean) == len(std) == 3 and min(std) > 0):
        raise UserError(f"{file}: size {side}, image_mean {mean} and image_std {std} are not those of colour images")
    return Preprocessing(side, mean, std)


def _longest(pair: Any, tokenizer: Any) -> int:
    """Word pieces of the longest text that the text tower reads."""
    limit = positions(getattr(pair, "text_model", pair))
    return int(min(limit or tokenizer.model_max_length, tokenizer.model_max_length))
