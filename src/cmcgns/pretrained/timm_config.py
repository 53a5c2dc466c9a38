"""How a run prepared its images, in the words of timm."""

from __future__ import annotations

import math
from typing import Any

from cmcgns.data.images.place import RESAMPLING
from cmcgns.settings.config import Recipe


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
