"""Spellings of weights: what other programs call the layers of a ResNet, ViT or EfficientNet, in timm's words."""

import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

Tensors = dict[str, Tensor]
BY_FILTER = "timm's filter"
"""The spelling of what only timm's own filter of the architecture understands."""
_Names = tuple[tuple[str, str], ...]

_TORCHVISION_VIT: _Names = (
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"^class_token$", "cls_token"),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.ln\.", "norm."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(?:0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(?:3|linear_2)\.", ".mlp.fc2."),
)
# ViT, DeiT, DINOv2 and CLIP of transformers, as its files and as its modules call them since version 5.
_TRANSFORMERS_VIT: _Names = (
    (r"^embeddings\.(cls_token|mask_token|position_ids)$", r"\1"),
    (r"^embeddings\.class_embedding$", "cls_token"),
    (r"^embeddings\.position_embedding(?:s|\.weight)$", "pos_embed"),
    (r"^embeddings\.(?:patch_embeddings\.projection|patch_embedding)\.", "patch_embed.proj."),
    (r"^(?:encoder\.)?layers?\.(\d+)\.", r"blocks.\1."),
    (r"\.(?:attention\.attention|attention|self_attn)\.(query|key|value|[qkv]_proj)\.", r".attn.\1."),
    (r"\.(?:attention\.output\.dense|attention\.o_proj|self_attn\.out_proj)\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.(?:layernorm_before|layer_norm1)\.", ".norm1."),
    (r"\.(?:layernorm_after|layer_norm2)\.", ".norm2."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"^pre_layrnorm\.", "norm_pre."),  # their spelling
    (r"^(?:post_)?layernorm\.", "norm."),
)
_QUERIES, _KEYS, _VALUES = ("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")
_BN = {"convolution": "conv", "normalization": "bn"}
_STAGES = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


def spellings(tensors: Tensors, body: nn.Module) -> Iterator[tuple[str, Tensors]]:
    """Every reading of a state dict that can be tried, with the name of the program that spells so; timm's first."""
    yield "", tensors
    for name, (mark, convert) in _SPELLINGS.items():
        if mark in tensors:
            yield name, convert(tensors, body)
    yield from _by_timm(tensors, body)


def _rename(tensors: Tensors, names: _Names) -> Tensors:
    renamed = {}
    for key, value in tensors.items():
        for pattern, name in names:
            key = re.sub(pattern, name, key)
        renamed[key] = value
    return renamed


def _torchvision_vit(tensors: Tensors, _: nn.Module) -> Tensors:
    return _rename(tensors, _TORCHVISION_VIT)


def _transformers_vit(tensors: Tensors, _: nn.Module) -> Tensors:
    """Queries, keys and values, which are three layers there, become one."""
    renamed = _rename(tensors, _TRANSFORMERS_VIT)
    renamed.pop("position_ids", None)  # numbers from 0 on
    for key in [key for key in renamed if re.search(rf"\.attn\.(?:{'|'.join(_QUERIES)})\.", key)]:
        before, layer = key.rsplit(".attn.", 1)
        end = layer.split(".", 1)[1]
        parts = [
            next((name for word in words if (name := f"{before}.attn.{word}.{end}") in renamed), "")
            for words in (_QUERIES, _KEYS, _VALUES)
        ]
        if all(parts) and len({renamed[name].shape for name in parts}) == 1:
            renamed[f"{before}.attn.qkv.{end}"] = torch.cat([renamed.pop(name) for name in parts])
    for key, axes in (("cls_token", 3), ("pos_embed", 3)):
        if key in renamed and 0 < renamed[key].ndim < axes:
            renamed[key] = renamed[key][(None,) * (axes - renamed[key].ndim)]
    return renamed


def _transformers_resnet(tensors: Tensors, _: nn.Module) -> Tensors:
    def name(key: str) -> str:
        if match := re.match(r"embedder\.embedder\.(\w+)\.(.+)", key):
            return f"{_BN.get(match[1], match[1])}1.{match[2]}"
        match = re.match(r"encoder\.stages\.(\d+)\.layers\.(\d+)\.(layer\.(\d+)|shortcut)\.(\w+)\.(.+)", key)
        if not match or match[5] not in _BN:
            return key
        block = f"layer{int(match[1]) + 1}.{match[2]}"
        if match[4] is None:
            return f"{block}.downsample.{int(match[5] == 'normalization')}.{match[6]}"
        return f"{block}.{_BN[match[5]]}{int(match[4]) + 1}.{match[6]}"

    return {name(key): value for key, value in tensors.items()}


def _numbered_resnet(tensors: Tensors, _: nn.Module) -> Tensors:
    """A ResNet whose children were put into an `nn.Sequential` to lose the head."""
    split = {key: key.partition(".") for key in tensors}
    return {f"{_STAGES.get(first, first)}{dot}{rest}": tensors[key] for key, (first, dot, rest) in split.items()}


def _efficientnet(tensors: Tensors, body: nn.Module) -> Tensors:
    blocks = sorted(
        {m.group(0) for key in body.state_dict() if (m := re.match(r"blocks\.\d+\.\d+", key))},
        key=lambda name: [int(part) for part in name.split(".")[1:]],
    )
    return {_efficientnet_key(key, blocks, tensors): value for key, value in tensors.items()}


def _efficientnet_key(key: str, blocks: list[str], tensors: Tensors) -> str:
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


_SPELLINGS: dict[str, tuple[str, Callable[[Tensors, nn.Module], Tensors]]] = {
    "torchvision's ViT": ("encoder.pos_embedding", _torchvision_vit),
    "EfficientNet-PyTorch": ("_conv_stem.weight", _efficientnet),
    "transformers' ViT": ("embeddings.patch_embeddings.projection.weight", _transformers_vit),
    "transformers' CLIP": ("embeddings.patch_embedding.weight", _transformers_vit),
    "transformers' ResNet": ("embedder.embedder.convolution.weight", _transformers_resnet),
    "numbered ResNet": ("4.0.conv1.weight", _numbered_resnet),
}


def _by_timm(tensors: Tensors, body: nn.Module) -> Iterator[tuple[str, Tensors]]:
    """timm's own filter of this architecture, which knows the files that its weights were made from.

    A filter also resamples filters of another patch size, which would make another encoder of them; that is refused.
    """
    convert: Any = getattr(sys.modules[type(body).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return
    readings = [(BY_FILTER, tensors)]
    if "conv1.weight" in tensors and {"class_embedding", "attnpool.q_proj.weight"} & tensors.keys():
        readings.append(
            ("CLIP", {f"visual.{key}": value for key, value in tensors.items()})
        )  # as the filter asks for
    kernels = {value.shape[2:] for value in tensors.values() if value.ndim == 4}
    for name, reading in readings:
        try:
            converted = convert(dict(reading), body)
        except Exception:  # nosec B112 # filters expect the files of their own architecture
            continue
        if {value.shape[2:] for value in converted.values() if value.ndim == 4} <= kernels:
            yield name, converted
