"""Settings from YAML: `--set` overrides, and messages that name the nearest right key."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from cmcgns.common.errors import MOST_QUOTED, UserError, did_you_mean, first_of, nearest, shortened
from cmcgns.common.files import explain
from cmcgns.common.packaged import packaged_names, packaged_text

MOST_BYTES = 1 << 20  # of a file of settings

_LONGEST_NUMBER = 100  # digits; parsing takes time with their square
_NUMBERS = tuple(f"tag:yaml.org,2002:{name}" for name in ("int", "float", "timestamp", "binary"))
Model = TypeVar("Model", bound=BaseModel)
_LISTED = 20  # offending keys of one file


class UniqueKeys(yaml.SafeLoader):
    """Safe YAML of which nothing is lost in silence, and that cannot grow: no key twice, no aliases."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As PyYAML's, but no key may stand there twice."""
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        if repeated := sorted(key for key, times in keys.items() if times > 1):
            raise yaml.constructor.ConstructorError(
                problem=f"{', '.join(repeated)[: MOST_QUOTED // 2]} is given twice", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """As PyYAML's, but an alias, by which a few lines may stand for gigabytes, is refused."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                problem=f"aliases (*{event.anchor[:MOST_QUOTED]}) are not read; write it out",
                problem_mark=event.start_mark,
            )
        node: yaml.Node | None = super().compose_node(parent, index)
        if isinstance(node, yaml.ScalarNode) and node.tag in _NUMBERS and len(node.value) > _LONGEST_NUMBER:
            raise yaml.composer.ComposerError(
                problem=f"a number of {len(node.value)} digits", problem_mark=node.start_mark
            )
        return node


def read_mapping_file(path: Path) -> dict[str, Any]:
    """Settings of a YAML file.

    Raises:
        UserError: unreadable, too long, not UTF-8, not YAML, or no mapping.
    """
    return parse_mapping(read_settings_text(path), str(path))


def named_text(kind: str, name: str, package: str, folder: str = "") -> str:
    """Settings that come with the package, by their name, or a user's own, by the path of a YAML file.

    Raises:
        UserError: neither; gives the nearest name and all of them. Errors of `read_settings_text`.
    """
    known, path = packaged_names(package, folder), Path(name)
    if name in known:
        return packaged_text(package, f"{folder}/{name}.yaml".lstrip("/"))
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return read_settings_text(path)
    hint = did_you_mean(name, known)
    raise UserError(f"no {kind} {name}: give the path of a .yaml file or one of {', '.join(known)}.{hint}")


def read_settings_text(path: Path) -> str:
    """The text of a file of settings, read no further than its bound.

    Raises:
        UserError: unreadable, too long, or not UTF-8.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UserError(explain(error, path, "read")) from error
    if len(content) > MOST_BYTES:
        raise UserError(_too_long(str(path)))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None


def parse_mapping(text: str, source: str) -> dict[str, Any]:
    """Settings of a YAML text; an empty one has none.

    Raises:
        UserError: too long, not YAML, or no mapping.
    """
    settings = _parse(text, source)
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise UserError(f"{source} holds a {type(settings).__name__}; a mapping of settings is expected")
    return settings


def _too_long(source: str) -> str:
    return f"{source} has more than {MOST_BYTES:,} bytes, which no file of settings needs"


def _parse(text: str, source: str) -> Any:
    if len(text) > MOST_BYTES:
        raise UserError(_too_long(source))
    try:
        return UniqueKeys(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        problem, mark = error.problem or error.context, error.problem_mark or error.context_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise UserError(f"{source} is not valid YAML: {str(problem)[:MOST_QUOTED]}{place}") from None
    except (yaml.YAMLError, ValueError) as error:  # the latter of dates such as 2024-13-45
        raise UserError(f"{source} is not valid YAML: {' '.join(str(error).split())[:MOST_QUOTED]}") from None
    except RecursionError:
        raise UserError(f"{source} is not valid YAML: it is nested too deeply") from None


def apply_overrides(settings: dict[str, Any], overrides: Sequence[str]) -> None:
    """Put `key=value` overrides into settings, in place; values are read as YAML.

    Raises:
        UserError: no `=`, a value that is not YAML, or a key below a value.
    """
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not all(part.strip() for part in key.split(".")):
            raise UserError(f"--set {shortened(override)}: expected key=value, for example training.batch_size=32")
        _assign(settings, key.strip(), _parse(value, f"--set {shortened(override)}: the value"))


def _assign(settings: dict[str, Any], key: str, value: Any) -> None:
    *groups, last = key.split(".")
    for group in groups:
        settings = settings.setdefault(group, {})
        if not isinstance(settings, dict):
            raise UserError(f"--set {shortened(key)}: {shortened(group)} is a value, not a group of settings")
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


def validated(model: type[Model], content: Any, source: str, command: str = "") -> Model:
    """Settings that were checked.

    Args:
        model: that they are to be.
        content: as read.
        source: named first in messages.
        command: that prints all keys; empty: there is none, and they are listed.

    Raises:
        UserError: one line for every offending key.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        details = error.errors(include_url=False)
        lines = first_of(details, _LISTED, lambda detail: _explain(dict(detail), model, command))
        raise UserError(f"{source}:\n  " + "\n  ".join(lines)) from None


def _explain(detail: dict[str, Any], model: type[BaseModel], command: str) -> str:
    key = shortened(".".join(str(part) for part in detail["loc"]))
    if detail["type"] == "extra_forbidden":
        keys = known_keys(model)
        keys += sorted({known.rpartition(".")[0] for known in keys if "." in known})  # groups, as `objective.bank`
        group, dot, last = key.rpartition(".")
        beside = [known for known in keys if known.rpartition(".")[0] == group]
        # The name alone is compared with those of its group: with the group before them all of these are alike.
        near = nearest(last, [known.removeprefix(group + dot) for known in beside])
        elsewhere = [known for known in keys if known.rpartition(".")[2] == last]
        meant = group + dot + near if near else next(iter(elsewhere), "")
        every = f" `{command}` shows all of them." if command else f" There are {', '.join(beside) or 'none'}."
        return f"{key} is no setting.{f' Did you mean {meant}?' if meant else every}"
    if detail["type"] in ("model_type", "dict_type"):
        detail["msg"] = "a group of settings (a mapping) is expected"
    if detail["type"] == "invalid_key":
        return f"{key} is no setting: names are text"
    message = detail["msg"].removeprefix("Value error, ")
    return f"{key}: {message} (got {shortened(repr(detail['input']))})" if key else message
