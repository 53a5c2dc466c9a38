"""Small random models as the transformers library saves them."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers

from cmcgns.data.reports.tokenizer import train_tokenizer

VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 5, "num_attention_heads": 2}
VISION |= {"image_size": 32, "patch_size": 8}
TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT |= {"vocab_size": 80, "max_position_embeddings": 24, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
TEXTS = ["No pleural effusion.", "There is a large left pleural effusion.", "The heart is large."]
SAID = {"size": {"height": 32, "width": 32}, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.25]}


def joined(vision: Any, text: Any) -> Any:
    """Two towers, of these configurations."""
    config = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(vision, text, projection_dim=12)
    return transformers.VisionTextDualEncoderModel(config)


def model_of(kind: str) -> Any:
    torch.manual_seed(3)
    if kind == "clip":
        return transformers.CLIPModel(
            transformers.CLIPConfig(vision_config=VISION, text_config=TEXT, projection_dim=12)
        )
    if kind == "siglip":
        return transformers.SiglipModel(transformers.SiglipConfig(vision_config=VISION, text_config=TEXT))
    if kind == "dual":
        return joined(transformers.ViTConfig(**VISION), transformers.BertConfig(**TEXT))
    return transformers.Dinov2Model(transformers.Dinov2Config(**VISION))


def folder_of(kind: Any, folder: Path, **processor: Any) -> Path:
    """A model of that kind, or a given one, saved with its tokenizer and image processor."""
    model = model_of(kind) if isinstance(kind, str) else kind
    with torch.no_grad():
        for parameter in model.parameters():  # a fresh head is nearly 0, and its layers are hardly told apart
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    if hasattr(model, "get_text_features"):
        train_tokenizer(TEXTS, 80).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(SAID | processor))
    return folder


def change_json(file: Path, *path: str, **values: Any) -> None:
    """Set values in a JSON file, in the group at `path`."""
    content = json.loads(file.read_text())
    group = content
    for name in path:
        group = group[name]
    group |= values
    file.write_text(json.dumps(content))
