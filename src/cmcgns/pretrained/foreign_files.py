"""What the settings in a folder of the transformers library say: which model it is, how its images are prepared."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmcgns.common.errors import UserError, one_line, shortened
from cmcgns.common.files import explain, not_the_file

MAX_SETTINGS = 16 * 2**20
"""Bytes of a JSON file with settings."""

_VIT = ("vit", "deit", "dinov2", "dinov2_with_registers", "dinov3_vit", "clip_vision_model", "siglip_vision_model")
IMAGE_TOWERS = (*_VIT, "ijepa", "vit_msn")
"""Model types of image encoders alone: a square grid of patches, row by row, behind whatever other tokens."""
JOINED = "vision-text-dual-encoder"
"""Model type of two towers that were joined."""
PAIRS = ("clip", "siglip", JOINED)
"""Model types of image-text pairs."""
# Of two joined towers each states what it makes of a whole image or text (`pooler_output`).
_TOWERS = {
    "vision_config": _VIT,
    "text_config": ("bert", "roberta", "xlm-roberta", "camembert", "clip_text_model"),
}
_WHY_NOT = {
    "siglip2": " (NaFlex: patches of images of any aspect) is not supported; SigLIP 2 of a fixed size says siglip",
    "vit_mae": " shuffles its patches and leaves most of them out",
}
_REFUSED = {
    "auto_map": "asks for code of its own, which is not run; save the model as a class of the library, without it",
    "quantization_config": "says that the weights are quantised; save them as fractions",
}
# Steps of an image processor, and what each may say. How a picture becomes a square is the same for all encoders that
# are judged, so that do_center_crop says only which side is meant; gray pictures are gray in all channels anyway.
_EITHER = (True, False)
_STEPS = {
    "do_resize": (True,),
    "do_center_crop": _EITHER,
    "do_rescale": _EITHER,
    "do_normalize": _EITHER,
    "do_convert_rgb": _EITHER,
}
_WHITE = 255  # of a pixel, before it is rescaled


@dataclass(frozen=True)
class Preprocessing:
    """What a folder says of its images.

    Attributes:
        size: side of the input in pixels.
        mean, std: of each channel, for pixels in [0, 1].
        file: that says so.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    file: Path

    @property
    def resize(self) -> int:
        """Long side of an image before the crop to `size`: 256 for 224, as for timm's models."""
        return round(256 * self.size / 224)


def read_settings(file: Path) -> dict[str, Any]:
    """The content of a JSON file.

    Raises:
        UserError: not there, no JSON object, or one that asks for code or for quantised weights.
    """
    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_SETTINGS + 1)
    except OSError as error:
        raise UserError(explain(error, str(file), "read")) from error
    if reason := not_the_file(text):
        raise UserError(f"{file}: no settings but {reason}")
    if len(text) > MAX_SETTINGS:
        raise UserError(f"{file}: more than {MAX_SETTINGS:,} bytes are no settings")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not readable as JSON ({one_line(error)})") from error
    if not isinstance(content, dict):
        raise UserError(f"{file}: settings are a JSON object, {{…}}")
    for key, value in entries(content):
        if key in _REFUSED and value:
            raise UserError(f"{file}: {key} {_REFUSED[key]}")
    return content


def entries(content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every key and value, those of groups within groups too."""
    waiting: list[Any] = [content]
    while waiting:
        group = waiting.pop()
        if isinstance(group, Mapping):
            yield from group.items()
            waiting += group.values()
        elif isinstance(group, list):
            waiting += group


def check_kinds(config: Mapping[str, Any], file: Path) -> None:
    """Refuse a model whose patches or texts are not known to come as they are asked for.

    Raises:
        UserError: names the key, what it says, and what can be opened.
    """
    _check_kind(config, file, "", (*IMAGE_TOWERS, *PAIRS))
    if config["model_type"] == JOINED:
        for part, known in _TOWERS.items():
            tower = config.get(part)
            _check_kind(tower if isinstance(tower, dict) else {}, file, f"{part}.", known)


def _check_kind(config: Mapping[str, Any], file: Path, part: str, known: tuple[str, ...]) -> None:
    kind = config.get("model_type")
    if kind not in known:
        raise UserError(
            f"{file}: {part}model_type {shortened(kind)}{_WHY_NOT.get(str(kind), ' is not supported')}. What can be "
            f"opened is {', '.join(known)}; the image tower of another architecture is NAME@FOLDER, with timm's name"
        )


def square_side(stated: Any) -> int | None:
    """The side of a square that is stated as one number, two equal ones, or by name; None if it is something else."""
    if isinstance(stated, Mapping):
        found = {key: value for key, value in stated.items() if value is not None}
        if found.keys() not in ({"height", "width"}, {"shortest_edge"}):  # of a square picture that edge is the side
            return None
        stated = list(found.values())
    sides = list(stated) if isinstance(stated, list | tuple) else [stated]
    if not 1 <= len(sides) <= 2 or sides[0] != sides[-1] or type(sides[0]) is not int:
        return None
    return sides[0]


def read_preprocessing(folder: Path, channels: int) -> Preprocessing:
    """How the images of a folder are prepared.

    Args:
        folder: with `preprocessor_config.json`, or `processor_config.json` and `image_processor` in it.
        channels: of the images.

    Raises:
        UserError: neither file says it, or something is said that cannot be done here.
    """
    file, content = _image_processor(folder)
    for key, value in content.items():
        possible = _STEPS.get(key, (False,))
        if key.startswith("do_") and value is not None and (type(value) is not bool or value not in possible):
            raise UserError(
                f"{file}: {key} {shortened(json.dumps(value))} cannot be followed here; edit it to "
                f"{' or '.join(map(json.dumps, possible))} if the weights take such images"
            )
    return Preprocessing(_side(content, file), *_statistics(content, file, channels), file)


def _image_processor(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The file that says how large images are, and what it says."""
    first, second = folder / "preprocessor_config.json", folder / "processor_config.json"
    if not first.is_file() and not second.is_file():
        raise UserError(f"{first} is missing: it says how images are prepared; save the image processor too")
    said: list[tuple[Path, Any]] = [(first, read_settings(first))] if first.is_file() else []
    if second.is_file():
        said.append((second, read_settings(second).get("image_processor")))
    for file, content in said:
        if isinstance(content, dict) and content.keys() & {"size", "crop_size"}:
            return file, content
    raise UserError(
        f"{said[0][0]} does not say size (or crop_size), image_mean and image_std, nor does image_processor in "
        f"{second.name}; save the image processor too"
    )


def _side(content: Mapping[str, Any], file: Path) -> int:
    """Side of the square that the model sees: of the crop, unless there is none."""
    crops = content.get("do_center_crop") is not False and content.get("crop_size") is not None
    key = "crop_size" if crops else "size"
    side, whole = square_side(content.get(key)), square_side(content.get("size"))
    if side is None or not 8 <= side <= 4096:
        raise UserError(
            f"{file}: {key} {shortened(json.dumps(content.get(key)))} is no square of 8 to 4,096 pixels; images are "
            f'squares here: edit it to {{"height": N, "width": N}} if the weights take such'
        )
    if whole is not None and whole < side:
        raise UserError(f"{file}: crop_size {side} is more than size {whole}; edit one of them")
    return side


def _statistics(content: Mapping[str, Any], file: Path, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, as for pixels in [0, 1], however they are rescaled."""
    white = 1.0
    if content.get("do_rescale") is False:
        white = float(_WHITE)
    elif (factor := content.get("rescale_factor")) is not None:
        (stated,) = _numbers(factor, file, "rescale_factor", 1, lowest=1e-6)
        white = 1.0 if math.isclose(_WHITE * stated, 1, rel_tol=1e-6) else _WHITE * stated
    mean, std = (0.0,) * channels, (1.0,) * channels
    if content.get("do_normalize") is not False:
        mean = _numbers(content.get("image_mean"), file, "image_mean", channels)
        std = _numbers(content.get("image_std"), file, "image_std", channels, lowest=1e-6)
    return tuple(each / white for each in mean), tuple(each / white for each in std)


def _numbers(stated: Any, file: Path, key: str, count: int, lowest: float = -1e6) -> tuple[float, ...]:
    numbers = stated if isinstance(stated, list) else [stated]
    fits = all(type(each) in (int, float) and lowest <= each <= 1e6 for each in numbers)  # NaN is not either
    if len(numbers) != count or not fits:
        above = ", above 0" if lowest > 0 else ""
        raise UserError(
            f"{file}: {key} {shortened(json.dumps(stated))} cannot be; expected: {count} finite numbers{above}"
        )
    return tuple(map(float, numbers))
