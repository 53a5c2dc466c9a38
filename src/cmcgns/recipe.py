"""Reading recipes: YAML by name or path, `--set` overrides, and messages that name the nearest right key."""

import difflib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from cmcgns.config import Recipe
from cmcgns.errors import UserError


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


def list_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files("cmcgns.recipes")
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply `key=value` overrides.

    Args:
        name_or_path: name of a shipped recipe, or path of a YAML file.
        overrides: such as `training.batch_size=32`; values are read as YAML.

    Raises:
        UserError: unknown recipe, unknown key, wrong type, unreadable YAML.
    """
    settings = _read_yaml(name_or_path)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise UserError(f"--set {override}: expected key=value, for example training.batch_size=32")
        try:
            _assign(settings, key.strip(), yaml.safe_load(value))
        except yaml.YAMLError as error:
            raise UserError(f"--set {override}: the value is not valid YAML: {error}") from None
    return parse_recipe(settings, source=name_or_path)


def parse_recipe(settings: Any, source: str) -> Recipe:
    """Check settings read from `source`.

    Raises:
        UserError: one line for every offending key.
    """
    try:
        return Recipe.model_validate(_fill(settings, Recipe().model_dump()))
    except ValidationError as error:
        lines = [_explain(dict(detail)) for detail in error.errors()]
        raise UserError(f"recipe {source}:\n  " + "\n  ".join(lines)) from None


def known_keys(model: type[BaseModel] = Recipe, prefix: str = "") -> list[str]:
    """Every setting as a dotted key."""
    keys: list[str] = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += known_keys(field.annotation, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def _read_yaml(name_or_path: str) -> dict[str, Any]:
    path = Path(name_or_path)
    if name_or_path in list_recipes():
        text = resources.files("cmcgns.recipes").joinpath(f"{name_or_path}.yaml").read_text("utf-8")
    elif path.suffix in (".yaml", ".yml") and path.is_file():
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{name_or_path} is not UTF-8 text: {error}") from None
    else:
        near = difflib.get_close_matches(name_or_path, list_recipes(), 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UserError(
            f"no recipe {name_or_path}: give the path of a .yaml file or one of {', '.join(list_recipes())}.{hint}"
        )
    try:
        settings = UniqueKeys(text).get_single_data()
    except yaml.YAMLError as error:
        raise UserError(f"{name_or_path} is not valid YAML: {error}") from None
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise UserError(f"{name_or_path} holds a {type(settings).__name__}; a mapping of settings is expected")
    return settings


def _fill(settings: Any, defaults: Any) -> Any:
    """Settings with the defaults of the recipe where they say nothing.

    A stage's defaults differ from those of its type: naming its learning rate must not change its epochs.
    """
    if not isinstance(settings, dict) or not isinstance(defaults, dict):
        return settings
    return defaults | {key: _fill(value, defaults.get(key)) for key, value in settings.items()}


def _assign(settings: dict[str, Any], key: str, value: Any) -> None:
    *groups, last = key.split(".")
    for group in groups:
        settings = settings.setdefault(group, {})
        if not isinstance(settings, dict):
            raise UserError(f"--set {key}: {group} is a value, not a group of settings")
    settings[last] = value


def _groups() -> list[str]:
    """Names of the groups, as `objective.bank`."""
    return sorted({key.rpartition(".")[0] for key in known_keys() if "." in key})


def _explain(detail: dict[str, Any]) -> str:
    key = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        keys = [*known_keys(), *_groups()]
        same_name = [known for known in keys if known.split(".")[-1] == key.split(".")[-1]]
        near = same_name[:1] or difflib.get_close_matches(key, keys, 1, cutoff=0.5)
        return f"{key} is no setting." + (f" Did you mean {near[0]}?" if near else "")
    message = detail["msg"].removeprefix("Value error, ")
    return f"{key}: {message} (got {detail['input']!r})" if key else message
