"""Which settings of the reconstruction go together; one that means nothing beside another is refused."""

import pytest

from cmcgns.common.errors import UserError
from cmcgns.settings.recipe import load_recipe, parse_recipe

ON = "objective.reconstruction=cross_modal"
REFUSED = {
    "objective.target_scale has no meaning with objective.target=features": ["target=features", "target_scale=2"],
    "objective.target_per_patch has no meaning with objective.target=text_map": [
        "target=text_map", "target_per_patch=true",
    ],
    "objective.target_momentum has no meaning with objective.target=pixels": ["target_momentum=0.9"],
    "objective.target has no meaning with objective.reconstruction=off": ["reconstruction=off", "target=features"],
    "objective.report_dropout has no meaning with objective.reconstruction=image_only": [
        "reconstruction=image_only", "report_dropout=0.1",
    ],
    "objective.mask_ratio has no meaning with objective.reconstruction=off": [
        "reconstruction=off", "mask_ratio=0.75",
    ],
    "objective.mask has no meaning with objective.reconstruction=off": ["reconstruction=off", "mask=pixels"],
    "objective.query has no meaning with objective.reconstruction=image_only": [
        "reconstruction=image_only", "query=unmasked",
    ],
    "query=unmasked asks with f_I of the whole image, which mask=tokens hides": ["mask=tokens", "query=unmasked"],
    "query=unmasked asks with f_I of the whole image, which mask=pixels hides": ["mask=pixels", "query=unmasked"],
    "made by what L_global trains: set weight_global above 0": [
        "target=text_map", "weight_global=0", "sentence_gradient=1",
    ],
    "set one of them above 0": ["target=features", "weight_image=0", "weight_report=0"],
    "objective.target_scale": ["target_scale=3"],
    "objective.target_momentum": ["target=features", "target_momentum=1"],
}  # fmt: skip


@pytest.mark.parametrize(("message", "changes"), REFUSED.items(), ids=list(REFUSED))
def test_what_means_nothing_is_refused_with_the_way_out(message: str, changes: list[str]) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe("default", [ON, *(f"objective.{change}" for change in changes)])


@pytest.mark.parametrize(
    "changes",
    [
        ["target=high_frequencies", "target_per_patch=true", "target_scale=2", "report_dropout=0.5"],
        ["target=text_map", "target_momentum=0.9", "mask=tokens", "mask_ratio=0.75"],
        ["target=features", "reconstruction=image_only", "weight_image=0"],
    ],
    ids=str,
)
def test_what_goes_together_is_taken(changes: list[str]) -> None:
    objective = load_recipe("default", [ON, *(f"objective.{change}" for change in changes)]).objective
    for name, _, value in (change.partition("=") for change in changes):
        assert str(getattr(objective, name)).lower() == value or float(getattr(objective, name)) == float(value)


def test_a_stored_recipe_that_lacks_the_new_settings_means_what_it_meant() -> None:
    stored = load_recipe("demo").model_dump(mode="json")
    for name in ("target", "target_scale", "target_per_patch", "target_momentum", "report_dropout"):
        del stored["objective"][name]
    assert parse_recipe(stored, "stored") == load_recipe("demo")
