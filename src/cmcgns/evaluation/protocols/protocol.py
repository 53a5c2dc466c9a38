"""Protocols: named, versioned descriptions of an evaluation, one YAML file each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, field_validator

from cmcgns.common.errors import UserError, did_you_mean, shortened
from cmcgns.common.files import expanded
from cmcgns.common.packaged import packaged_names, packaged_text
from cmcgns.evaluation.task_settings import TaskSettings, find_task_settings, task_names
from cmcgns.pretrained.prompts import SOURCES, later_wording, read_prompts
from cmcgns.settings.config import Settings
from cmcgns.settings.yaml import apply_overrides, merge, parse_mapping, read_mapping_file, validated

Kind = TypeVar("Kind", bound=TaskSettings)


class SplitSettings(Settings):
    """Who is in which split."""

    rule: Literal["v1", "legacy", "any"] = "v1"
    """`cmcgns prepare --split` that the manifest must come from; any: whatever it says"""
    column: str = "split"
    """column of the manifest; `split_detection` for RSNA's legacy boxes"""
    train: list[str] = Field(["train"])
    val: list[str] = Field(["val"])
    """empty: `validation_share` of the training patients"""
    test: list[str] = Field(["test"])
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.15
    seed: Annotated[int, Field(ge=0)] = 0


class EvaluationProtocol(Settings):
    """One protocol."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*/[a-z0-9][a-z0-9.+-]*$")]
    title: str
    task: str
    dataset: str = ""
    """name in the manifest's column `dataset`; empty: any"""
    release: str = ""
    split: SplitSettings = SplitSettings()
    views: Literal["frontal", "all"] = "frontal"
    labels: list[str] = Field([])
    """empty: all that the manifest has"""
    uncertain: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field({})
    """what -1 means; else not used"""
    empty_labels: Literal["unknown", "negative"] = "unknown"
    image_size: Annotated[int, Field(ge=16)] | None = None
    """null: the encoder's own"""
    whole_image: bool = False
    """false: resized and cropped at the centre as in pretraining"""
    fractions: list[Annotated[float, Field(gt=0, le=100)]] = Field([1, 10, 100], min_length=1)
    """per cent"""
    fraction_of: Literal["patients", "images"] = "patients"
    seeds: Annotated[int, Field(ge=1)] = 3
    settings: dict[str, Any] = Field({})
    """of the task; see docs/evaluation.md"""
    primary: str = ""
    """the metric that tables show; empty: the task's first"""
    anchors: dict[str, list[float | None]] = Field({})
    """published values of `primary` x 100, one a fraction of 1, 10, 100 %"""
    notes: list[str] = Field([])

    @field_validator("fractions")
    @classmethod
    def _rising(cls, value: list[float]) -> list[float]:
        return sorted(set(value))

    @field_validator("task")
    @classmethod
    def _known(cls, value: str) -> str:
        find_task_settings(value)
        return value

    @property
    def learns(self) -> bool:
        """Whether the task is trained, so that there are fractions, seeds, training and validation rows."""
        return "train" in self.parts

    @property
    def parts(self) -> tuple[str, ...]:
        """The splits whose rows enter a result."""
        return find_task_settings(self.task).parts

    @property
    def task_settings(self) -> TaskSettings:
        """`settings`, checked and with the defaults of the task."""
        return find_task_settings(self.task).model_validate(self.settings)

    def settings_as(self, kind: type[Kind]) -> Kind:
        """The same, of a task that knows what its settings are."""
        settings = self.task_settings
        assert isinstance(settings, kind)
        return settings

    @property
    def sha256(self) -> str:
        """Of everything that decides a result."""
        content = self.model_dump(mode="json", exclude={"title", "anchors", "notes", "release", "fractions", "seeds"})
        prompts = self.task_settings.model_dump().get("prompts")
        if isinstance(prompts, str) and (worded := later_wording(prompts)):
            content["prompts"] = worded
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, order=True)
class Cell:
    """One number of a table before it has a value: a label fraction and a seed.

    Attributes:
        fraction: per cent of the training patients; None for tasks that learn nothing.
        seed: of the fraction and of the training; None for tasks that learn nothing.
    """

    fraction: float | None = None
    seed: int | None = None

    @property
    def name(self) -> str:
        """A file name."""
        return "all" if self.fraction is None else f"{self.fraction:g}-percent-seed-{self.seed}"


def list_protocols() -> list[str]:
    """Ids of the protocols that come with the package."""
    names = (name.rpartition("-") for name in packaged_names("cmcgns.evaluation.protocols"))
    return sorted(f"{name}/{version}" for name, _, version in names)


def protocol_titles() -> dict[str, str]:
    """Id and title of the protocols that come with the package; no task's libraries are imported for that."""
    return {name: str(_read(name)["title"]) for name in list_protocols()}


def load_protocol(name: str, overrides: Sequence[str] = ()) -> EvaluationProtocol:
    """A protocol by id or from a YAML file.

    A file may say `base: rsna-linear/v1` and then states only what differs; its `id` must be its own.

    Args:
        name: `rsna-linear/v1` (`rsna-linear` means the same), or the path of a YAML file.
        overrides: `key=value`, for example `split.test=[val]`; the id then ends in `+` and a hash of the change.

    Raises:
        UserError: unknown protocol or key, a wrong value, or a `primary` that the task does not make; names it.
    """
    content = _read(name)
    apply_overrides(content, overrides)
    if overrides:
        digest = hashlib.sha256(json.dumps(sorted(overrides)).encode()).hexdigest()[:6]
        content["id"] = f"{content.get('id', '')}+{digest}"
    _inline_prompts(content, name)
    command = f"cmcgns protocols show {_like(content)}"
    where = f"protocol {shortened(name)}"
    protocol = validated(EvaluationProtocol, content, where, command)
    settings = validated(find_task_settings(protocol.task), protocol.settings, f"{where}, settings", command)
    _check_primary(protocol, settings.figures, where)
    return protocol


def _check_primary(protocol: EvaluationProtocol, figures: Sequence[str], where: str) -> None:
    """Raise where tables are to show a figure that is not made: that must not come out after hours of work."""
    if protocol.primary and protocol.primary not in figures:
        raise UserError(
            f"{where}: primary: task {protocol.task} makes no {shortened(protocol.primary)} with these settings."
            f"{did_you_mean(protocol.primary[:100], figures)} Choose one of its figures with --set primary=: "
            f"{', '.join(figures)}"
        )


def _like(content: dict[str, Any]) -> str:
    """A protocol that comes with the package and has the same keys: of the same task, if that is known."""
    name = f"{content.get('task', '')}/v1".replace("_", "-")
    return name if name in list_protocols() else "linear/v1"


def _inline_prompts(content: dict[str, Any], name: str) -> None:
    """Put a file of prompts into the protocol itself: what it says decides results, so it belongs into the hash."""
    settings = content.get("settings")
    prompts = settings.get("prompts") if isinstance(settings, dict) else None
    task = content.get("task")
    if task in task_names() and "prompts" not in find_task_settings(task).model_fields:
        return  # a key that the task does not have is refused as any other
    if isinstance(settings, dict) and isinstance(prompts, str) and prompts not in SOURCES:
        file = _file_of(prompts)
        if file is None:
            raise UserError(
                f"protocol {name}: settings.prompts: {shortened(prompts)}: no such file (neither a file nor one of "
                f"{', '.join(SOURCES)})"
            )
        read_prompts(file)  # names the label and what is wrong with it
        content["settings"] = settings | {"prompts": read_mapping_file(file)}


def _file_of(text: str) -> Path | None:
    """The file that a text names, however odd it is; None if there is none."""
    try:
        path = expanded(text)
        return path if path.is_file() else None
    except (OSError, RuntimeError, ValueError):  # too long for a disk, somebody unknown's home, a null character
        return None


def _read(name: str, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return _read_file(path, above)
    known = list_protocols()
    name = f"{name}/v1" if f"{name}/v1" in known else name
    if name not in known:
        hint = did_you_mean(name[:100], known)
        raise UserError(
            f"no protocol is called {shortened(name)}.{hint} `cmcgns protocols list` shows all; a protocol file ends "
            "in .yaml"
        )
    return parse_mapping(packaged_text("cmcgns.evaluation.protocols", f"{name.replace('/', '-')}.yaml"), name)


def _read_file(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """A file with what its `base` says; `above` are the files that it is the base of."""
    if not path.is_file():
        raise UserError(f"{path}: no such protocol file")
    if path.resolve() in above:
        raise UserError(f"{path}: is its own `base`")
    content = read_mapping_file(path)
    base = content.pop("base", None)
    if content.get("id") in list_protocols():
        raise UserError(f"{path}: needs an `id` of its own; {content['id']} comes with the package")
    if base is None:
        return content
    if not isinstance(base, str):
        raise UserError(f"{path}: `base` is the id or the file of one protocol, not {shortened(repr(base))}")
    beside = path.parent / base
    inherited = _read(str(beside) if beside.is_file() else base, (*above, path.resolve()))
    if content.get("id", inherited.get("id")) == inherited.get("id"):
        raise UserError(f"{path}: needs an `id` of its own, so that nobody takes its results for those of {base}")
    content.setdefault(
        "title", f"{inherited.get('title', base)} ({content.get('id')})"
    )  # two columns must not have one heading
    merged: dict[str, Any] = merge(inherited, content)
    return merged
