"""Reading recipes: YAML by name or path, with overrides."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from cmcgns.common.errors import UserError
from cmcgns.common.packaged import packaged_names
from cmcgns.settings.config import ObjectiveSettings, Recipe
from cmcgns.settings.yaml import apply_overrides, merge, named_text, parse_mapping, validated


def list_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return packaged_names("cmcgns.settings.recipes")


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply `key=value` overrides.

    Args:
        name_or_path: name of a shipped recipe, or path of a YAML file; or several between plus signs, each laid over
            those before it, such as `demo+rival-gloria`.
        overrides: such as `training.batch_size=32`; values are read as YAML.

    Raises:
        UserError: unknown recipe, unknown key, wrong type, unreadable YAML; an override of clusters that are off.
    """
    settings = _read(name_or_path)
    before = _with_defaults(settings).get("objective")
    apply_overrides(settings, overrides)
    recipe = parse_recipe(settings, source=name_or_path)
    _refuse_idle(recipe.objective, before, overrides)
    return recipe


def parse_recipe(settings: Any, source: str) -> Recipe:
    """Check settings read from `source`.

    Raises:
        UserError: one line for every offending key.
    """
    return validated(Recipe, _with_defaults(settings), f"recipe {source}", f"cmcgns recipes {_shown_by(settings)}")


def _shown_by(settings: Any) -> str:
    """The recipe of the package whose text has every setting of the objective, a rival's own ones too."""
    objective = settings.get("objective") if isinstance(settings, dict) else None
    rival = f"rival-{objective.get('name')}" if isinstance(objective, dict) else ""
    return rival if rival in list_recipes() else "default"


def parse_stored_recipe(settings: Any, source: str) -> Recipe:
    """The settings of a run as it kept them, which may be older than some of them.

    Raises:
        UserError: as :func:`parse_recipe`.
    """
    return parse_recipe(_with_younger(settings), source)


def completed(settings: Any) -> Any:
    """Settings as something made from them kept them, unchecked; those that are younger as they were in effect."""
    return _with_defaults(_with_younger(settings))


def _with_younger(settings: Any) -> Any:
    objective, own = settings.get("objective"), ObjectiveSettings().name
    rival = isinstance(objective, dict) and objective.get("name", own) != own
    return settings if rival else merge(_BEFORE, settings)


# What was done before a setting existed is what its default does, but for these.
_BEFORE = {
    "objective": {
        "local": "own_query",
        "rarity": 0.0,
        "bank": {"reseed": False},
        "patch_positions": False,
        "unit_values": False,
        "weight_matching": 0.0,
    }
}


_OF_CLUSTERS = ("bank", "mu", "rarity", "false_negatives", "centroid_negatives")


_KEEP = "keep"  # of a recipe laid over another: what it takes of that one's objective


def _refuse_idle(objective: ObjectiveSettings, before: Any, overrides: Sequence[str]) -> None:
    """Overrides of L_match without L_report, and of clusters where there are none, unless turned off by name.

    In a file such settings may stand: they wait for the switch. With `own_query` some of them have to be named.
    """
    named = {override.partition("=")[0].strip() for override in overrides}
    if "objective.weight_matching" in named and objective.weight_matching and not objective.weight_report:
        raise UserError(
            "objective.weight_matching needs objective.weight_report, which is 0: leave it out, or set both"
        )
    waits = objective.name == "cm-cgns" and objective.local != "own_query" and objective.negatives == "in_batch"
    if not named or not waits or "objective.negatives" in named:
        return
    try:
        in_file = ObjectiveSettings.model_validate(before)
    except ValidationError:  # an override has mended it
        in_file = ObjectiveSettings()
    for name in _OF_CLUSTERS:
        if getattr(objective, name) != getattr(in_file, name):
            raise UserError(
                f"objective.{name} has no effect with objective.negatives=in_batch: set objective.negatives=cluster "
                f"too, or leave objective.{name} as it is"
            )


def _with_defaults(settings: Any) -> Any:
    # A stage's defaults differ from those of its type: naming its learning rate must not change its epochs.
    return merge(Recipe().model_dump(mode="json"), settings)


def describe_settings(
    settings: BaseModel, hidden: Collection[str] = (), parts: Mapping[str, BaseModel] | None = None
) -> str:
    """Every setting as YAML that can be read again, with its meaning as a comment.

    Args:
        settings: of a recipe, or a part of one.
        hidden: keys such as `objective.mu` that are left out.
        parts: by key, settings whose meaning stands nowhere else, in place of the mapping there.
    """
    return "\n".join(_lines(settings, "", hidden, parts or {}))


def differences(before: Mapping[str, Any], now: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """`training.seed (0, now 1)` for every setting that two recipes, as nested mappings, do not share."""
    for name in [*before, *(name for name in now if name not in before)]:
        old, new = before.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from differences(old, new, f"{above}{name}.")
        elif old != new or (name in before) != (name in now):
            yield f"{above}{name} ({json.dumps(old)}, now {json.dumps(new)})"


def with_free_settings(recipe: Recipe, other: Recipe) -> Recipe:
    """A recipe with those settings of another one that change nothing of what is learned."""
    data = recipe.data.model_copy(update={"workers": other.data.workers, "images": other.data.images})
    training = recipe.training.model_copy(update={"keep_checkpoints": other.training.keep_checkpoints})
    return recipe.model_copy(update={"data": data, "training": training})


def _lines(settings: BaseModel, above: str, hidden: Collection[str], parts: Mapping[str, BaseModel]) -> Iterator[str]:
    indent = "  " * above.count(".")
    for name, field in type(settings).model_fields.items():
        if (key := above + name) in hidden:
            continue
        value = parts.get(key, getattr(settings, name))
        if isinstance(value, BaseModel) and type(value).model_fields:
            yield f"{indent}{name}:  # {str(type(value).__doc__).splitlines()[0]}"
            yield from _lines(value, f"{key}.", hidden, parts)
        else:
            value = value.model_dump() if isinstance(value, BaseModel) else value
            meaning = "  # " + " ".join(field.description.split()) if field.description else ""
            yield f"{indent}{name}: {json.dumps(value, ensure_ascii=False)}{meaning}"


def _read(source: str) -> dict[str, Any]:
    """A recipe, or several of them between plus signs, each laid over those before it."""
    if Path(source).is_file() or source in list_recipes():
        return {key: value for key, value in _read_one(source).items() if key != _KEEP}
    settings: dict[str, Any] = {}
    for part in source.split("+"):
        if "+" in source and not part.strip():
            raise UserError(f"recipe {source}: a part between the plus signs is empty: NAME+NAME is expected")
        settings = _laid_over(settings, _read_one(part.strip()))
    settings.pop(_KEEP, None)
    return settings


def _read_one(name_or_path: str) -> dict[str, Any]:
    content = parse_mapping(named_text("recipe", name_or_path, "cmcgns.settings.recipes"), name_or_path)
    kept = content.get(_KEEP, [])
    if not isinstance(kept, list) or any(name not in ObjectiveSettings.model_fields for name in kept):
        raise UserError(f"recipe {name_or_path}: {_KEEP} lists settings of `objective`, such as [decoder_width]")
    return content


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Settings with those of `below` where `above` says nothing.

    Of an objective that `above` replaces by another one only the width stays, and what `above` lists as `keep`: its
    other settings are its own.
    """
    before, after = (each.get("objective") for each in (below, above))
    name = after.get("name") if isinstance(after, dict) else None
    if name and isinstance(before, dict) and name != before.get("name", ObjectiveSettings().name):
        kept = ("dim", *above.get(_KEEP, ()))
        below = below | {"objective": {key: before[key] for key in kept if key in before}}
    merged: dict[str, Any] = merge(below, above)
    return merged
