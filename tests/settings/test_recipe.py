"""Recipes: what is shipped parses, what is wrong is named with the nearest right name."""

import re

import pytest
from pydantic import BaseModel

from cmcgns.common.errors import UserError
from cmcgns.settings.config import Recipe
from cmcgns.settings.recipe import (
    completed,
    describe_settings,
    differences,
    list_recipes,
    load_recipe,
    parse_recipe,
    parse_stored_recipe,
    with_free_settings,
)
from cmcgns.settings.yaml import known_keys, merge


@pytest.mark.parametrize("name", list_recipes())
def test_shipped_recipes_parse_and_carry_their_name(name):
    assert load_recipe(name).name == name


def test_what_is_not_said_stays_as_it_was() -> None:
    base = {"a": 1, "b": {"c": 2, "d": {"e": 3}}, "list": [1, 2]}
    change = {"b": {"d": {"f": 4}, "g": 5}, "list": [3], "h": {"i": 6}}
    merged = merge(base, change)
    assert merged == {"a": 1, "b": {"c": 2, "d": {"e": 3, "f": 4}, "g": 5}, "list": [3], "h": {"i": 6}}
    assert base["b"] == {"c": 2, "d": {"e": 3}}  # nothing is changed in place
    assert merge(base, {"b": 7})["b"] == 7
    assert merge({"b": 7}, base)["b"] == base["b"]


def test_the_default_recipe_is_the_defaults():
    assert load_recipe("default") == Recipe()
    assert {"default", "demo"} <= set(list_recipes())


def leaves(content, prefix=""):
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def test_known_keys_are_all_keys():
    keys = known_keys(Recipe)
    assert sorted(keys) == sorted(leaves(Recipe().model_dump()))
    assert {"name", "data.columns", "objective.bank.clusters", "alignment.epochs"} <= set(keys)


@pytest.mark.parametrize("key", [key for key in known_keys(Recipe) if key != "data.columns"])
def test_every_key_can_be_set_and_the_value_arrives(key):
    """What the default says again is accepted under that name, and groups are kept apart."""
    value = Recipe().model_dump()
    for part in key.split("."):
        value = value[part]
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else value
    assert load_recipe("default", [f"{key}={text}"]) == Recipe()


def test_overrides_are_typed_and_the_last_one_wins():
    recipe = load_recipe(
        "demo",
        [
            "training.batch_size=8",
            "alignment.learning_rate=1e-4",
            "objective.negatives=cluster",
            "objective.bank.rate=0.5",
            "data.val_split=null",
            "data.columns.image_path=Path to image",
            "objective.duplicates=false",
            "training.batch_size=16",
        ],
    )
    assert recipe.training.batch_size == 16
    assert recipe.alignment.learning_rate == 1e-4
    assert recipe.objective.bank.rate == 0.5
    assert recipe.objective.bank.clusters == load_recipe("demo").objective.bank.clusters
    assert recipe.data.val_split is None
    assert recipe.data.columns == {"image_path": "Path to image"}
    assert recipe.objective.duplicates is False


@pytest.mark.parametrize(
    "change",
    ["objective.mu=2", "objective.bank.clusters=256", "objective.bank={clusters: 256}", "objective.rarity=0"],
)
def test_an_override_of_clusters_that_are_off_is_refused_with_the_switch(change):
    name = change.split("=")[0].removeprefix("objective.").split(".")[0]
    with pytest.raises(
        UserError, match=rf"objective.{name} has no effect with objective\.negatives=in_batch: set obj"
    ):
        load_recipe("demo", [change])
    for negatives in ("cluster", "hard", "in_batch"):  # the last: turned off by name, as in a study's cell
        load_recipe("demo", [change, f"objective.negatives={negatives}"])


def test_settings_of_clusters_wait_in_a_file_for_their_switch(tmp_path):
    """Numbers that YAML reads as text are numbers to the settings: nothing was overridden."""
    file = tmp_path / "r.yaml"
    file.write_text("name: r\nobjective: {mu: 2e0, rarity: 5e-1, bank: {rate: 5e-2}}\n")
    for overrides in ([], ["training.seed=3"], ["objective.dim=64"]):
        assert load_recipe(str(file), overrides).objective.bank.rate == 0.05
    with pytest.raises(UserError, match=r"objective\.mu has no effect"):
        load_recipe(str(file), ["objective.mu=3"])
    file.write_text("name: r\nobjective: {negatives: in_batch, mu: x}\n")
    with pytest.raises(UserError, match=r"objective\.mu has no effect"):
        load_recipe(str(file), ["objective.mu=2"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.batchsize=3", r"training\.batchsize is no setting\. Did you mean training\.batch_size\?"),
        ("traning.seed=3", r"traning is no setting\. Did you mean training\?"),
        ("batch_size=3", r"batch_size is no setting\. Did you mean training\.batch_size\?"),
        ("bank.clusters=3", r"bank is no setting\. Did you mean objective\.bank\?"),
        ("qqqqqq=3", r"qqqqqq is no setting\. `cmcgns recipes default` shows all"),
        ("training.batch_size=many", r"training\.batch_size: .*valid integer.*got 'many'"),
        ("training.batch_size=0", r"training\.batch_size: .*greater than 0.*got 0"),
        ("data.views=top", r"data\.views: .*'frontal' or 'all'.*got 'top'"),
        ("data=3", r"data: .*got 3"),
        ("name.first=3", r"--set name\.first: name is a value, not a group"),
        ("training.batch_size", r"expected key=value, for example training\.batch_size=32"),
        ("training.batch_size=[1", r"--set training\.batch_size=\[1: the value is not valid YAML"),
        ("data.resize=100", r"data\.resize \(100\) is smaller than data\.image_size \(224\)"),
        ("objective.dim=100", "must be divisible by 8"),
        ("=3", "expected key=value"),
        ("data.val_split=train", r"data\.train_split and data\.val_split are both train: .*null holds patients out"),
        ("training..seed=3", "expected key=value"),
        ("training.batch_size=true", r"training\.batch_size: a number is expected \(got True\)"),
        ("data.resize=200000", r"data\.resize: .*less than or equal to 4096 \(got 200000\)"),
        ("alignment.learning_rate=1e30", r"alignment\.learning_rate: .*less than or equal to 1 "),
        ("training.precision=16-mixed", r"training\.precision: .*'32-true' or 'bf16-mixed' \(got '16-mixed'\)"),
        # Logit scales are held at 100 and below: a lower temperature would be another one than the recipe's.
        ("objective.tau=0.009", r"objective\.tau: .*greater than or equal to 0\.01 \(got 0\.009\)"),
        ("objective.temperature=0.009", r"objective\.temperature: .*greater than or equal to 0\.01"),
    ],
)
def test_wrong_overrides(override, message):
    with pytest.raises(UserError, match=message):
        load_recipe("default", [override])


def default(key):
    value = Recipe().model_dump()
    for part in key.split("."):
        value = value[part]
    return value


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan"])
@pytest.mark.parametrize("key", [key for key in known_keys(Recipe) if type(default(key)) in (int, float)])
def test_numbers_that_are_not_finite_are_refused_by_their_key(key, value):
    with pytest.raises(UserError, match=rf"(?m)^  {re.escape(key)}: .*(finite number|1 or [23])"):
        load_recipe("default", [f"{key}={value}"])


@pytest.mark.parametrize("key", [key for key in known_keys(Recipe) if type(default(key)) is int])
def test_every_whole_number_has_a_bound_above_and_below(key):
    for value in (-1, 10**20):
        message = rf"(?m)^  {re.escape(key)}: .*(less than|greater than|1 or [23]|maximum size).*got {value}"
        with pytest.raises(UserError, match=message):
            load_recipe("default", [f"{key}={value}"])


@pytest.mark.parametrize("name", list_recipes())
def test_the_settings_that_are_shown_are_a_recipe(name, tmp_path):
    text = describe_settings(load_recipe(name, ["training.seed=7"]))
    (tmp_path / "shown.yaml").write_text(text)
    assert load_recipe(str(tmp_path / "shown.yaml")) == load_recipe(name, ["training.seed=7"])
    keys = {line.split(":")[0].strip() for line in text.splitlines()}
    assert {key.rpartition(".")[2] for key in known_keys(Recipe)} <= keys
    assert all(re.search("  # [^ ]", line) for line in text.splitlines())  # each with its meaning, on one line
    assert "start_from_step" in text
    assert "the cosine is small at the very start too" in text


def test_something_trains_the_report_encoder():
    load_recipe("default", ["objective.weight_global=0", "objective.sentence_gradient=0.5"])
    with pytest.raises(UserError, match=r"nothing would train .*; set objective\.sentence_gradient=1"):
        load_recipe("default", ["objective.weight_global=0", "objective.sentence_gradient=0"])


def test_released_arithmetic_refuses_switches_that_it_does_not_have():
    released = {
        "arithmetic": "released", "sentence_gradient": 1, "tau": 1, "learn_tau": "false", "duplicates": "false",
        "false_negatives": "margin", "local": "own_query", "rarity": 0, "bank": "{source: text, reseed: false}",
        "patch_positions": "false", "unit_values": "false", "weight_matching": 0,
    }  # fmt: skip
    overrides = [f"objective.{name}={value}" for name, value in released.items()]
    load_recipe("default", overrides)
    load_recipe("default", [*overrides, "objective.negatives=in_batch"])
    for wrong in (
        "sentence_gradient=0.1", "tau=0.05", "learn_tau=true", "duplicates=true", "false_negatives=keep",
        "negatives=hard", "local=query_matched", "rarity=1", "bank.source=centred", "bank.reseed=true",
        "patch_positions=true", "unit_values=true", "bank.seeding=farthest_point",
    ):  # fmt: skip
        name = wrong.partition("=")[0]
        with pytest.raises(UserError, match=rf"released has no such switches: set objective\.{name}="):
            load_recipe("default", [*overrides, f"objective.{wrong}"])
    with pytest.raises(UserError, match=r"set .*sentence_gradient=1\.0, .*tau=1\.0, .*learn_tau=false"):
        load_recipe("default", ["objective.arithmetic=released"])


@pytest.mark.parametrize("wrong", ["margin_weight=0.1", "alpha=0.1", "beta=0.6"])
def test_a_margin_is_refused_where_there_is_none(wrong):
    name = wrong.partition("=")[0]
    with pytest.raises(
        UserError, match=rf"objective\.{name} is of local=own_query and its margin: leave its default"
    ):
        load_recipe("default", [f"objective.{wrong}"])
    load_recipe("paper-resnet50", [f"objective.{wrong}"])


def test_the_published_form_refuses_switches_of_the_other():
    for wrong in ("centroid_negatives=false", "rarity=1", "weight_matching=1"):
        name = wrong.partition("=")[0]
        with pytest.raises(UserError, match=rf"own_query has no such switches: set objective\.{name}="):
            load_recipe("paper-resnet50", [f"objective.{wrong}"])


def test_a_run_trains_for_at_least_one_epoch():
    assert load_recipe("default", ["alignment.epochs=0"]).reconstruction.epochs > 0
    with pytest.raises(UserError, match=r"alignment\.epochs and reconstruction\.epochs are both 0"):
        load_recipe("default", ["alignment.epochs=0", "reconstruction.epochs=0"])


def test_every_mistake_is_listed_at_once():
    with pytest.raises(UserError) as caught:
        load_recipe("default", ["training.sed=1", "data.image_sise=2", "alignment.epochs=-1"])
    assert len(str(caught.value).splitlines()) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"data: [1", "is not valid YAML"),
        (b"data:\n\timage_size: 1", "is not valid YAML"),
        (b"- a\n- b", "holds a list; a mapping of settings is expected"),
        (b"name: caf\xe9", "is not UTF-8 text"),
        (b"!!python/object/apply:os.getcwd []", "is not valid YAML"),
        (b"data: {resize: 300}\ndata: {image_size: 64}", "not valid YAML: data is given twice"),
        (b"training:\n  seed: 1\n  seed: 2", "not valid YAML: seed is given twice"),
        (b"training: {batch_size: 8, batchsize: 9}", "Did you mean training.batch_size"),
    ],
)
def test_wrong_files(tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load_recipe(str(path))
    assert "mine.yaml" in str(caught.value)


def test_an_empty_file_is_the_default(tmp_path):
    path = tmp_path / "mine.yml"
    path.write_text("# nothing\n")
    assert load_recipe(str(path)) == Recipe()


def test_a_rival_s_settings_are_looked_up_where_they_are_listed():
    with pytest.raises(UserError, match=r"double_softmax is no setting\. `cmcgns recipes rival-gloria` shows all"):
        load_recipe("demo+rival-gloria", ["objective.double_softmax=true"])
    with pytest.raises(UserError, match=r"no recipe clip: .* Did you mean rival-clip\?"):
        load_recipe("demo+clip")


def test_unknown_recipes_name_the_nearest(tmp_path):
    with pytest.raises(UserError, match=r"no recipe dmo: .*one of default, demo.*Did you mean demo\?"):
        load_recipe("dmo")
    with pytest.raises(UserError, match="no recipe"):
        load_recipe(str(tmp_path / "absent.yaml"))
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(UserError, match="no recipe"):
        load_recipe(str(tmp_path / "folder.yaml"))


def test_a_recipe_survives_its_own_dump():
    recipe = load_recipe("demo", ["data.columns.report=text"])
    assert parse_recipe(recipe.model_dump(mode="json"), "dump") == recipe


def test_settings_cannot_be_changed_behind_the_back_of_their_checks():
    with pytest.raises(ValueError, match="frozen"):
        Recipe().training.batch_size = 0


def groups(model):
    yield model
    for field in model.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from groups(field.annotation)


def test_every_group_of_settings_says_what_it_is():
    assert all(group.__doc__ and len(group.__doc__) > 8 for group in groups(Recipe))


def test_a_run_may_go_on_with_other_workers_and_from_other_folders_but_with_no_other_learning():
    before = load_recipe("default", [])
    moved = load_recipe("default", ["data.images=/mnt/b", "data.workers=3", "training.keep_checkpoints=5"])
    assert with_free_settings(moved, before) == before
    for change in ("data.separator=;", "training.seed=1", "data.resize=300"):
        assert with_free_settings(load_recipe("default", [change]), before) != before


def test_a_run_that_is_older_than_a_setting_stays_what_it_was():
    kept = load_recipe("paper-resnet50").model_dump(mode="json")
    for name in ("local", "rarity", "centroid_negatives", "patch_positions", "unit_values", "weight_matching"):
        del kept["objective"][name]
    del kept["objective"]["bank"]["reseed"]
    assert parse_stored_recipe(kept, "config.yaml") == load_recipe("paper-resnet50")
    assert list(differences(completed(kept), load_recipe("paper-resnet50").model_dump(mode="json"))) == []
    assert parse_recipe({"objective": {}}, "own.yaml").objective.local == "query_matched"


def test_a_rival_keeps_of_the_recipe_below_what_both_have():
    """So that a rival's decoder is as large as the method's."""
    below = load_recipe("demo").objective
    for rival, kept in (("prior", True), ("mrm", True), ("clip", False)):
        objective = load_recipe(f"demo+rival-{rival}").objective
        assert objective.dim == below.dim
        assert (objective.decoder_width == below.decoder_width) is kept
    assert load_recipe("rival-prior").objective.decoder_width == load_recipe("default").objective.decoder_width


def test_what_is_kept_is_a_setting_of_the_objective(tmp_path):
    file = tmp_path / "own.yaml"
    for kept in ("[decoder]", "3", "{dim: 1}"):
        file.write_text(f"keep: {kept}\nobjective: {{name: prior}}")
        with pytest.raises(UserError, match="keep lists settings of `objective`"):
            load_recipe(f"demo+{file}")


@pytest.mark.parametrize("name", ["demo+", "+rival-clip", "demo++rival-clip"])
def test_an_empty_part_of_a_recipe_is_called_that(name):
    with pytest.raises(UserError, match="a part between the plus signs is empty"):
        load_recipe(name)
    assert load_recipe("demo + rival-clip") == load_recipe("demo+rival-clip")
