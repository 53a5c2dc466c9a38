"""Settings from YAML: `--set` overrides, and messages that name the nearest right key."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from cmcgns.common.errors import UserError


class UniqueKeys(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice, of which the first would be lost in silence."""

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
        UserError: not UTF-8, not YAML, or no mapping.
    """
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error}") from None
    return parse_mapping(text, str(path))


def parse_mapping(text: str, source: str) -> dict[str, Any]:
    """Settings of a YAML text; an empty one has none.

    Raises:
        UserError: not YAML, or no mapping.
    """
    try:
        settings = UniqueKeys(text).get_single_data()
    except yaml.YAMLError as error:
        raise UserError(f"{source} is not valid YAML: {error}") from None
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise UserError(f"{source} holds a {type(settings).__name__}; a mapping of settings is expected")
    return settings


def apply_overrides(settings: dict[str, Any], overrides: Sequence[str]) -> None:
    """Put `key=value` overrides into settings, in place; values are read as YAML.

    Raises:
        UserError: no `=`, a value that is not YAML, or a key below a value.
    """
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not all(part.strip() for part in key.split(".")):
            raise UserError(f"--set {override}: expected key=value, for example training.batch_size=32")
        try:
            _assign(settings, key.strip(), yaml.safe_load(value))
        except yaml.YAMLError as error:
            reason = getattr(error, "problem", None) or type(error).__name__
            raise UserError(
                f"--set {override}: the value is not valid YAML ({reason}); a text is quoted twice: "
                f"--set \"{key}='{value}'\""
            ) from None


def _assign(settings: dict[str, Any], key: str, value: Any) -> None:
    *groups, last = key.split(".")
    for group in groups:
        settings = settings.setdefault(group, {})
        if not isinstance(settings, dict):
            raise UserError(f"--set {key}: {group} is a value, not a group of settings")
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


def explain(error: ValidationError, model: type[BaseModel], source: str) -> str:
    """A message with one line for every offending key."""
    return f"{source}:\n  " + "\n  ".join(_explain(dict(detail), model) for detail in error.errors())


def _explain(detail: dict[str, Any], model: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        keys = known_keys(model)
        keys += sorted({known.rpartition(".")[0] for known in keys if "." in known})  # groups, as `objective.bank`
        same_name = [known for known in keys if known.split(".")[-1] == key.split(".")[-1]]
        near = same_name[:1] or difflib.get_close_matches(key, keys, 1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else " `cmcgns recipes default` shows all of them."
        return f"{key} is no setting.{hint}"
    message = detail["msg"].removeprefix("Value error, ")
    return f"{key}: {message} (got {detail['input']!r})" if key else message
