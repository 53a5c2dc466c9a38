"""Pretrained image weights from local files: read safely, renamed where needed, loaded strictly."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from cmcgns.common.errors import UserError

logger = logging.getLogger(__name__)

_WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema")
_PREFIXES = ("module.", "backbone.", "encoder_q.", "image_encoder.body.", "model.image_encoder.body.")
_HEADS = ("fc.", "head.", "heads.", "classifier.", "head_dist.")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read tensors from a safetensors or PyTorch file; nothing in the file is executed.

    Raises:
        UserError: no such file, unreadable, or without tensors.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such weights file")
    try:
        content: Any = load_file(path) if path.suffix == ".safetensors" else _torch_load(path)
    except UnpicklingError as error:  # torch's own message recommends to run the code
        raise UserError(
            f"{path}: no weights file, or one that holds more than tensors, and its code is not run; "
            "save the state dict of the model alone, best as .safetensors"
        ) from error
    except Exception as error:
        raise UserError(f"{path}: not a readable weights file ({type(error).__name__}: {error})") from error
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    items = content.items() if isinstance(content, dict) else ()
    tensors = {key: value for key, value in items if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"{path} holds no tensors")
    return tensors


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose keys begin with a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def load_image_weights(body: nn.Module, path: Path, channels: int) -> None:
    """Load a timm or torchvision state dict into a timm backbone without a head.

    Known spellings are renamed (torchvision ViT, the EfficientNet-PyTorch family); the classification head of
    the file is left out; three-channel first layers are summed for one channel. Everything else must match.

    Raises:
        UserError: listing missing, unexpected and misshapen keys.
    """
    wanted = body.state_dict()
    tensors = _rename(_strip_prefixes(read_state_dict(path), body), body)
    dropped = [key for key in tensors if key not in wanted and key.startswith(_HEADS)]
    tensors = {key: value for key, value in tensors.items() if key not in dropped}
    if channels == 1:
        tensors = {key: _sum_channels(value, wanted.get(key)) for key, value in tensors.items()}
    check_keys(tensors, wanted, str(path))
    body.load_state_dict(tensors)
    logger.info("loaded %d tensors from %s (head left out: %s)", len(tensors), path, ", ".join(dropped) or "none")


def check_keys(tensors: dict[str, Tensor], wanted: dict[str, Tensor], source: str) -> None:
    """Refuse tensors that do not fit exactly.

    Raises:
        UserError: with the keys.
    """
    # Old files lack the counter, which only matters for BatchNorm without momentum.
    counters = {key for key in wanted if key.endswith("num_batches_tracked")} - tensors.keys()
    tensors |= {key: wanted[key] for key in counters}
    problems = {
        "missing": sorted(wanted.keys() - tensors.keys()),
        "unexpected": sorted(tensors.keys() - wanted.keys()),
        "other shape": [
            f"{key} {tuple(tensors[key].shape)} instead of {tuple(wanted[key].shape)}"
            for key in wanted
            if key in tensors and tensors[key].shape != wanted[key].shape
        ],
    }
    found = [f"{len(keys)} {kind}: {_some(keys)}" for kind, keys in problems.items() if keys]
    if found:
        raise UserError(f"{source} does not fit the model:\n  " + "\n  ".join(found))


def _torch_load(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:8]) + (f", … ({len(keys) - 8} more)" if len(keys) > 8 else "")


def _strip_prefixes(tensors: dict[str, Tensor], body: nn.Module) -> dict[str, Tensor]:
    """The keys below one or two known prefixes ("module.backbone."), if these are what the model calls its own."""
    wanted = body.state_dict().keys()
    for prefix in ("", *_PREFIXES, *(first + second for first in _PREFIXES for second in _PREFIXES)):
        inside = below(tensors, prefix)
        if wanted & _rename(inside, body).keys():
            return inside
    return tensors


def _sum_channels(value: Tensor, target: Tensor | None) -> Tensor:
    # A gray image repeated to three channels meets the sum of the three filters.
    if target is not None and value.ndim == 4 and target.shape[1] == 1 and value.shape[1] == 3:
        return value.sum(1, keepdim=True)
    return value


def _rename(tensors: dict[str, Tensor], body: nn.Module) -> dict[str, Tensor]:
    if "class_token" in tensors and "encoder.pos_embedding" in tensors:
        return {_torchvision_vit_key(key): value for key, value in tensors.items()}
    if "_conv_stem.weight" in tensors:
        blocks = sorted(
            {m.group(0) for key in body.state_dict() if (m := re.match(r"blocks\.\d+\.\d+", key))},
            key=lambda name: [int(part) for part in name.split(".")[1:]],
        )
        return {_efficientnet_key(key, blocks, tensors): value for key, value in tensors.items()}
    return tensors


def _torchvision_vit_key(key: str) -> str:
    key = re.sub(r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1.", key)
    for old, new in (
        ("class_token", "cls_token"),
        ("encoder.pos_embedding", "pos_embed"),
        ("conv_proj.", "patch_embed.proj."),
        ("encoder.ln.", "norm."),
        (".ln_1.", ".norm1."),
        (".ln_2.", ".norm2."),
        (".self_attention.in_proj_", ".attn.qkv."),
        (".self_attention.out_proj.", ".attn.proj."),
        (".mlp.linear_1.", ".mlp.fc1."),
        (".mlp.linear_2.", ".mlp.fc2."),
        (".mlp.0.", ".mlp.fc1."),
        (".mlp.3.", ".mlp.fc2."),
    ):
        key = key.replace(old, new)
    return key


def _efficientnet_key(key: str, blocks: list[str], tensors: dict[str, Tensor]) -> str:
    """EfficientNet-PyTorch's flat `_blocks.N` -> timm's `blocks.stage.index`."""
    if match := re.match(r"_blocks\.(\d+)\.(\w+)\.(.+)", key):
        number, layer, rest = int(match[1]), match[2], match[3]
        if number >= len(blocks):
            return key
        expands = f"_blocks.{number}._expand_conv.weight" in tensors
        names = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
        if expands:
            names = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
            names |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
        names |= {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
        return f"{blocks[number]}.{names.get(layer, layer)}.{rest}"
    for old, new in (
        ("_conv_stem.", "conv_stem."),
        ("_bn0.", "bn1."),
        ("_conv_head.", "conv_head."),
        ("_bn1.", "bn2."),
        ("_fc.", "classifier."),
    ):
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key
