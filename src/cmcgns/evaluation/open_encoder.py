"""Naming an encoder on the command line."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import torch

from cmcgns.common.errors import UserError, one_line
from cmcgns.common.files import expanded
from cmcgns.evaluation.encoder import HALF, IMAGENET, FrozenEncoder, Statistics
from cmcgns.evaluation.encoder_names import HELP, KINDS, check_timm, explain_folder, explain_name, is_folder
from cmcgns.models.image_encoder import ImageEncoder
from cmcgns.models.weights import load_image_weights
from cmcgns.pretrained import load, random_twin
from cmcgns.pretrained.foreign import open_transformers
from cmcgns.settings.config import ImageEncoderSettings
from cmcgns.training.run_folder import RunFolder

_SIZE, _RESIZE = 224, 256  # of timm models that state nothing
_FILES = ("model.safetensors", "pytorch_model.bin")
_ANSWER = 10.0  # seconds


def open_encoder(
    text: str, normalise: str | None = None, image_size: int | None = None, seed: int = 0, prefix: str = ""
) -> FrozenEncoder:
    """Build the encoder that a user named.

    Args:
        text: `runs/a`, `resnet50@weights.pth`, `random:runs/a`, `random:resnet50`, `imagenet:resnet50` or
            `transformers:downloads/clip`.
        normalise: `half` (mean = std = 0.5) or `imagenet`; only for timm names. By default `imagenet` where weights
            are given, `half` for a random start.
        image_size: side of the input, only for timm names; 224 by default.
        seed: of a random start.
        prefix: of the keys in a file that holds several encoders.

    Raises:
        UserError: nothing of that name, or weights that do not fit; lists the keys.
    """
    kind, colon, rest = text.partition(":")
    if kind not in KINDS or not colon:
        kind, rest = "", text
    if not rest.strip():
        raise UserError(f"{text or 'ENCODER'}: nothing is named. An encoder is {HELP}")
    name, at, file = rest.partition("@")
    if kind == "transformers":
        if normalise or image_size or prefix:
            raise UserError(f"{text}: its image processor says size and normalisation; leave those options out")
        return _from_transformers(expanded(rest))
    is_run = is_folder(rest) and kind != "imagenet"
    if prefix and (is_run or kind or not at):
        raise UserError(f"--prefix {prefix}: only weights of another program, NAME@FILE, have a prefix")
    if is_run:
        if normalise or image_size:
            raise UserError(
                f"{rest} is a run: its preprocess.json says size and normalisation; leave those options out"
            )
        return _from_run(Path(rest), kind == "random", seed)
    if kind and at:
        raise UserError(f"{text}: {kind}: and a weights file contradict each other")
    if not kind and not at:
        raise UserError(explain_name(text))
    check_timm(text, kind, name, at, file)
    statistics = {"half": HALF, "imagenet": IMAGENET, None: HALF if kind == "random" else IMAGENET}[normalise]
    return _from_timm(name, kind, expanded(file), statistics, image_size or _SIZE, seed, prefix)


def _from_run(folder: Path, random: bool, seed: int) -> FrozenEncoder:
    if not RunFolder(folder).config.is_file():
        raise UserError(explain_folder(folder))
    model = load(folder)
    name = folder.resolve().name
    if random:
        model, name = random_twin(model, seed), f"random ({name})"
    data = model.recipe.data
    return FrozenEncoder(name, model.task.model.image_encoder, data.image_size, data.resize, HALF, model, random)


def _from_transformers(folder: Path) -> FrozenEncoder:
    if not folder.is_dir():
        raise UserError(f"transformers:{folder}: there is no such folder; `hf download NAME --local-dir {folder}`")
    encoder, made_for, pair = open_transformers(folder)
    statistics = made_for.mean, made_for.std
    return FrozenEncoder(folder.resolve().name, encoder, made_for.size, made_for.resize, statistics, pair)


def _from_timm(
    name: str, kind: str, file: Path, statistics: Statistics, size: int, seed: int, prefix: str
) -> FrozenEncoder:
    torch.manual_seed(seed)
    encoder = ImageEncoder(ImageEncoderSettings(name=name, channels=3), size)
    label = f"{kind} {name}".strip()
    if kind == "imagenet":
        _load_imagenet(encoder, name)
    elif not kind:
        load_image_weights(encoder.body, file, 3, prefix)
        label = f"{name} ({', '.join(filter(None, (file.stem, prefix)))})"
    resize = round(_RESIZE * size / _SIZE)
    return FrozenEncoder(label, encoder, size, resize, statistics, seen_nothing=kind == "random")


def _load_imagenet(encoder: ImageEncoder, name: str) -> None:
    import timm

    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise UserError(f"imagenet:{name}: timm has no weights of that name; a file of yours is {name}@FILE")
    try:
        content = {"pretrained_cfg_overlay": {"file": _hub_file(config)}} if config.hf_hub_id else {}
        weights = timm.create_model(name, pretrained=True, num_classes=0, **content).state_dict()
    except Exception as error:  # whatever the download library raises without a network
        cause = one_line(error)
        raise UserError(
            f"imagenet:{name}: timm's weights are not on this machine and could not be fetched ({cause}). "
            f"Fetch the file of {config.hf_hub_id or config.url} on another machine and name it, {name}@FILE, or "
            "bring that machine's Hugging Face cache here and name its folder in HF_HOME"
        ) from error
    encoder.body.load_state_dict(weights)


def _hub_file(config: Any) -> str:
    """Path of timm's weights in the cache of Hugging Face; fetched if they are not there and the hub answers.

    Left alone, the library asks again and again for every file, which takes a minute or more where nobody answers.

    Raises:
        OSError: the hub does not answer in time, HF_HUB_OFFLINE forbids to ask, or it has no such file.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    repository, _, revision = config.hf_hub_id.partition("@")
    names = [config.hf_hub_filename] if config.hf_hub_filename else _FILES
    for name in names:
        found = try_to_load_from_cache(repository, name, revision=revision or None)
        if isinstance(found, str):
            return found
    for name in names:
        url = hf_hub_url(repository, name, revision=revision or None)
        try:
            _within(_ANSWER, partial(get_hf_file_metadata, url, timeout=_ANSWER))
        except EntryNotFoundError:
            continue
        return hf_hub_download(repository, name, revision=revision or None)
    raise FileNotFoundError(f"{config.hf_hub_id} has none of {', '.join(names)}")


def _within(seconds: float, ask: Callable[[], object]) -> None:
    """Ask, but do not wait longer: to look up a host's name knows no limit of time."""
    failures: list[Exception] = []

    def run() -> None:
        try:
            ask()
        except Exception as error:
            failures.append(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {seconds:g} s")
    if failures:
        raise failures[0]
