"""What a text names as an encoder, and what was probably meant where it names none."""

import json
from pathlib import Path

from cmcgns.common.errors import UserError, did_you_mean, shortened
from cmcgns.models.image_encoder import no_model

HELP = (
    "RUN (folder of a finished run), NAME@FILE (timm name and weights of another program, a file or a folder), "
    "random:RUN, random:NAME, imagenet:NAME (timm's own weights; downloaded if they are not here), or "
    "transformers:FOLDER (a vision transformer or an image-text pair as the transformers library saves it)"
)
KINDS = ("random", "imagenet", "transformers")
_HUBS = ("hf-hub", "hf_hub", "hf")
_CONFIG_BYTES = 2**20


def is_folder(name: str) -> bool:
    """Whether a text is the path of a folder, however odd it is."""
    try:
        return Path(name).is_dir()
    except OSError:  # a name that no disk can hold
        return False


def check_timm(text: str, kind: str, name: str, at: str, file: str) -> None:
    """Refuse what lacks one half of NAME@FILE, or names no architecture of timm.

    Raises:
        UserError: says which half, or the nearest name.
    """
    import timm

    shown = shortened(text)
    if not name.strip() or (at and not file.strip()):
        missing = "a weights file is" if name.strip() else "a timm name is"
        raise UserError(f"{shown}: {missing} missing; NAME@FILE is expected, for example resnet50@weights.pth")
    if not timm.is_model(name):
        run = f"{shortened(name)} is no run folder, and " if kind == "random" else ""
        raise UserError(f"{shown}: {run}{no_model(shortened(name))}")


def explain_name(text: str) -> str:
    """Why a text without `@` and without a kind names no encoder, and what was probably meant."""
    import timm

    shown = shortened(text)
    kind, colon, rest = text.partition(":")
    if timm.is_model(text):
        return f"{text} says no weights: imagenet:{text} (timm's own), random:{text}, or {text}@FILE (yours)"
    if not colon and _is_file(text):
        return f"{shown} is a file: weights do not say what they are for; put the timm name before it, NAME@{shown}"
    if colon and (near := did_you_mean(kind.lower(), KINDS)):
        return f"{shown}: {shortened(kind)} is no kind of encoder.{near} An encoder is {HELP}"
    hub = rest.strip("/") if kind in _HUBS else text
    if hub.count("/") == 1 and not hub.startswith((".", "/", "~")) and not hub.endswith("/"):
        return (
            f"{shown} is no run folder. An encoder is {HELP}. A model of Hugging Face is fetched first, `hf download "
            f"{shortened(hub)} --local-dir FOLDER`, and then named NAME@FOLDER, with timm's name of its architecture"
        )
    return f"{shown} is no run folder.{did_you_mean(text, timm.list_models())} An encoder is {HELP}"


def explain_folder(folder: Path) -> str:
    """What stands in a folder that is no run's, as far as its config.json says."""
    try:
        with (folder / "config.json").open("rb") as file:
            config = json.loads(file.read(_CONFIG_BYTES))
        architecture, kind = config.get("architecture"), config.get("model_type")
    except (OSError, ValueError, AttributeError, RecursionError):
        architecture = kind = None
    if isinstance(architecture, str):
        return f"{folder} is no run folder but a model of timm: name it {shortened(architecture)}@{folder}"
    if isinstance(kind, str):
        return (
            f"{folder} is no run folder but a model of transformers ({shortened(kind)}): transformers:{folder} opens "
            f"vision transformers and image-text pairs; else put the timm name of the same architecture before it, "
            f"NAME@{folder}, for example vit_base_patch16_224@{folder}"
        )
    return f"{folder} is no run folder: config.yaml is missing. An encoder is {HELP}"


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except OSError:
        return False
