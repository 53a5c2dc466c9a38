"""Settings from YAML: `--set` overrides, and messages that name the nearest right key."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from cmcgns.common.errors import UserError

MOST_BYTES = 1 << 20  # of a file of settings
_SHOWN = 200  # letters of what a user wrote that a message quotes
_LISTED = 20  # offending keys of one file


class UniqueKeys(yaml.SafeLoader):
    """Safe YAML without aliases, a few of which unpack without end, and without keys given twice.

    Of such a key the first value would be lost in silence.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """As PyYAML's, but an alias is an error."""
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.composer.ComposerError(
                problem=f"line {self.line + 1} has an alias (*name), which is not read: write the value out"
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As PyYAML's, but no key may stand there twice."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if repeated := {key for key in keys if keys.count(key) > 1}:
            raise yaml.constructor.ConstructorError(
                problem=f"{', '.join(sorted(repeated))} is given twice", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)


def read_mapping_file(path: Path) -> dict[str, Any]:
    """Settings of a YAML file.

    Raises:
        UserError: too large, not UTF-8, not YAML, or no mapping.
    """
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise UserError(f"{path} has more than {MOST_BYTES:,} bytes, which no file of settings needs")
    try:
        return parse_mapping(content.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None


def parse_mapping(text: str, source: str) -> dict[str, Any]:
    """Settings of a YAML text; an empty one has none.

    Raises:
        UserError: not YAML, or no mapping.
    """
    settings = _parse(text, source)
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise UserError(f"{source} holds a {type(settings).__name__}; a mapping of settings is expected")
    return settings


def _parse(text: str, source: str) -> Any:
    try:
        return UniqueKeys(text).get_single_data()
    except RecursionError:
        raise UserError(f"{source} is not valid YAML: it is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:  # the second: a number or a date that Python does not take
        raise UserError(f"{source} is not valid YAML: {shown(error)}") from None


def shown(value: object) -> str:
    """What a message quotes of something that a user wrote, however long it is."""
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def apply_overrides(settings: dict[str, Any], overrides: Sequence[str]) -> None:
    """Put `key=value` overrides into settings, in place; values are read as YAML.

    Raises:
        UserError: no `=`, a value that is not YAML, or a key below a value.
    """
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise UserError(f"--set {shown(override)}: expected key=value, for example training.batch_size=32")
        _assign(settings, key.strip(), _parse(value, f"--set {shown(override)}: the value"))


def _assign(settings: dict[str, Any], key: str, value: Any) -> None:
    *groups, last = key.split(".")
    for group in groups:
        settings = settings.setdefault(group, {})
        if not isinstance(settings, dict):
            raise UserError(f"--set {shown(key)}: {shown(group)} is a value, not a group of settings")
    settings[last] = value


def merge(base: Any, change: Any) -> Any:
    """Settings with those of `base` where they say nothing, group by group."""
    if not isinstance(base, dict) or not isinstance(change, dict):
        return change
    return base | {key: merge(base.get(key), value) for key, value in change.items()}


def known_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Every setting as a dotted key."""
    keys: list[str] = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += known_keys(field.annotation, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def explain(error: ValidationError, model: type[BaseModel], source: str, command: str = "") -> str:
    """A message with one line for every offending key.

    Args:
        error: of the validation.
        model: that the settings were to be.
        source: named first.
        command: that prints all keys; empty: there is none, and they are listed.
    """
    details = error.errors()
    lines = [_explain(dict(detail), model, command) for detail in details[:_LISTED]]
    rest = [f"… and {len(details) - _LISTED} more"] if len(details) > _LISTED else []
    return f"{source}:\n  " + "\n  ".join(lines + rest)


def _explain(detail: dict[str, Any], model: type[BaseModel], command: str) -> str:
    key = shown(".".join(str(part) for part in detail["loc"]))
    if detail["type"] == "extra_forbidden":
        keys = known_keys(model)
        keys += sorted({known.rpartition(".")[0] for known in keys if "." in known})  # groups, as `objective.bank`
        same_name = [known for known in keys if known.split(".")[-1] == key.split(".")[-1]]
        near = same_name[:1] or difflib.get_close_matches(key, keys, 1, cutoff=0.5)
        every = f" `{command}` shows all of them." if command else f" There are {', '.join(keys)}."
        hint = f" Did you mean {near[0]}?" if near else every
        return f"{key} is no setting.{hint}"
    message = detail["msg"].removeprefix("Value error, ")
    return f"{key}: {message} (got {shown(repr(detail['input']))})" if key else message
