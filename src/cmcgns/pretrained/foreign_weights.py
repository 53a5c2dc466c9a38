"""Weights in a folder of the transformers library, compared with its settings before memory is taken for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cmcgns.common.errors import UserError, first_of, one_line, shortened
from cmcgns.models.weight_files import MAX_ENTRIES, read_state_dict
from cmcgns.pretrained.foreign_files import check_kinds, entries, read_settings

_NAMED = 3  # tensors that a message names
_FRACTIONS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_PLACES = ("position_ids", "token_type_ids")  # whole numbers that old files hold, which nothing reads
_ATTENTION = "sdpa"  # a folder may name another, which would be fetched
_MOST = 2  # how many times the numbers of its weights a model may hold


def load_model(folder: Path) -> Any:
    """The model of a folder in eval mode, with the tensors alone that images and texts pass.

    Raises:
        UserError: files that are missing, do not fit, or ask for what is not done here.
    """
    file = folder / "config.json"
    settings = read_settings(file)
    check_kinds(settings, file)
    tensors = read_state_dict(folder)
    _check_fractions(tensors, folder)
    _check_counts(settings, file, len(tensors))
    plan = _without_memory(file)
    _check_size(plan, tensors, folder)
    try:
        model, report = type(plan).from_pretrained(
            None, config=plan.config, state_dict=tensors, dtype=torch.float32, ignore_mismatched_sizes=True,
            output_loading_info=True, attn_implementation=_ATTENTION,
        )  # fmt: skip
    except Exception as error:  # whatever the library raises of weights that do not fit
        raise UserError(
            f"{folder}: transformers cannot load its weights; fetch or save them again ({one_line(error)})"
        ) from error
    _drop_unread(model)
    _check_weights(model, report, folder)
    return model.eval()


def _without_memory(file: Path) -> Any:
    """The model that a `config.json` describes, with shapes and without numbers."""
    from transformers import AutoConfig, AutoModel

    try:
        # nothing is fetched: local_files_only
        config = AutoConfig.from_pretrained(  # nosec B615
            str(file.parent), local_files_only=True, trust_remote_code=False
        )
        with torch.device("meta"):
            return AutoModel.from_config(config, attn_implementation=_ATTENTION)
    except Exception as error:  # whatever the library raises of settings that do not fit together
        raise UserError(
            f"{file}: transformers cannot build this model; fetch the file again, or undo what was edited "
            f"({one_line(error)})"
        ) from error


def has_text(model: Any) -> bool:
    """Whether a model is an image-text pair."""
    return hasattr(model, "get_text_features") and hasattr(model, "get_image_features")


def _check_fractions(tensors: Mapping[str, Tensor], folder: Path) -> None:
    for name, value in tensors.items():
        if value.dtype not in _FRACTIONS and not name.endswith(_PLACES):
            raise UserError(
                f"{folder}: the weights of {shortened(name)} are {str(value.dtype).removeprefix('torch.')}, no plain "
                "fractions (quantised?); save them as float32, float16 or bfloat16"
            )


def _check_counts(settings: Mapping[str, Any], file: Path, tensors: int) -> None:
    """Refuse counts of which lists are made even where no memory is taken for weights."""
    bounds = {"num_hidden_layers": tensors, "num_labels": MAX_ENTRIES}
    for key, value in entries(settings):
        if key in bounds and isinstance(value, int) and value > bounds[key]:
            raise UserError(f"{file}: {key} {shortened(value)} does not fit the {tensors:,} tensors of its weights")


def _check_size(plan: Any, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Refuse a configuration that asks for far more memory than the weights fill; `plan` takes none."""
    wanted = dict(plan.named_parameters()) | dict(plan.named_buffers())
    held = sum(value.numel() for value in tensors.values())
    if sum(value.numel() for value in wanted.values()) <= _MOST * held:
        return
    name = max(wanted, key=lambda each: wanted[each].numel())
    same = next((key for key in tensors if key.endswith(name) or name.endswith(key)), None)
    found = (
        f"hold {same} {tuple(tensors[same].shape)}" if same else f"hold {held:,} numbers in all, and no such tensor"
    )
    raise UserError(
        f"{folder}: config.json asks for {name} {tuple(wanted[name].shape)}, but the weights {found}: they do not "
        "belong together; fetch both again"
    )


def _drop_unread(model: Any) -> None:
    """Leave out what no image or text passes: drawn anew where a file lacks it, it would still count as a weight."""
    for module in model.modules():
        if getattr(module, "mask_token", None) is not None:  # of patches that training hides
            module.mask_token = None
    if not has_text(model) and getattr(model, "pooler", None) is not None:  # patches are taken before it
        model.pooler = None


def _check_weights(model: Any, report: Mapping[str, Any], folder: Path) -> None:
    """Raise where a tensor would stay as it was drawn, or is not finite."""
    kept = model.state_dict()
    if misfits := sorted(report["mismatched_keys"]):
        name, found, wanted = misfits[0]
        more = f" (and {len(misfits) - 1:,} more)" if len(misfits) > 1 else ""
        raise UserError(
            f"{folder}: the weights hold {name} {tuple(found)}, but config.json asks for {tuple(wanted)}{more}: they "
            "do not belong together; fetch both again"
        )
    if missing := sorted(kept.keys() & set(report["missing_keys"])):
        unknown = sorted(report["unexpected_keys"])
        others = (
            f"; it has {', '.join(first_of(unknown, _NAMED, shortened))}, which the model has not" if unknown else ""
        )
        raise UserError(
            f"{folder}: the weights lack {', '.join(first_of(missing, _NAMED))} of {type(model).__name__}{others}"
        )
    if wrong := [name for name, value in kept.items() if not bool(value.isfinite().all())]:
        raise UserError(f"{folder}: the weights of {', '.join(first_of(wrong, _NAMED))} are not finite")
