"""Settings of strangers: whatever a YAML text holds, it ends soon, in settings or in one short message."""

import time
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cmcgns.common.errors import MOST_QUOTED, UserError
from cmcgns.evaluation.protocols import list_protocols, load_protocol
from cmcgns.settings.config import Recipe
from cmcgns.settings.recipe import list_recipes, load_recipe, parse_recipe
from cmcgns.settings.yaml import MOST_BYTES, apply_overrides, parse_mapping, read_mapping_file

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"{name}: &{name} [{', '.join(['*' + below] * 9)}]" for below, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, r"aliases \(\*a\) are not read; write it out \(line 2, column 8\)"),
        ("a: &x 1\nb: *x", r"aliases \(\*x\) are not read"),
        ("a: &x {b: 1}\nc: {<<: *x}", r"aliases \(\*x\) are not read"),
        ("a: &x [*x]", r"aliases \(\*x\) are not read"),
        ("a: 1\na: 2", r"a is given twice \(line 1, column 1\)"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor for the tag"),
        ("a: " + "9" * 5000, "a number of 5000 digits"),
        ("a: 1" + ":1" * 100_000, "a number of 200001 digits"),
        ("a: 2024-13-45", "month must be in 1..12"),
        ("[" * 5000, "it is nested too deeply"),
        ("{a: " * 5000, "it is nested too deeply"),
        ("- " * 5000, "it is nested too deeply"),
        ("a: [1", "expected ',' or ']'"),
        ("a: \0", "unacceptable character #x0000"),
        ("a: b: c", r"mapping values are not allowed here \(line 1, column 5\)"),
        ("? [a]\n: b", "found unhashable key"),
        ("a: 1\n---\nb: 2", "but found another document"),
        ("- a", "a list; a mapping of settings is expected"),
        ("text", "a str; a mapping"),
        ("%" + "y" * 100_000, "not valid YAML"),
        ("a: *" + "y" * 100_000, "aliases"),
        ("a: !" + "y" * 100_000 + " 1", "could not determine"),
        ("\n".join(["k" * 1000 + ": 1"] * 2), "k{100} is given twice"),
        ("#" * (MOST_BYTES + 1), "more than 1,048,576 bytes"),
    ],
    ids=range(24),
)
def test_what_is_no_mapping_of_settings(text: str, message: str) -> None:
    began = time.monotonic()
    with pytest.raises(UserError, match=f"^there (is|holds|has).*{message}") as caught:
        parse_mapping(text, "there")
    assert len(str(caught.value)) < MOST_QUOTED + 100
    assert time.monotonic() - began < 20


@given(st.text(alphabet="ab:-[]{}&*!?|>'\"%@#,. \n\t0", max_size=60))
def test_any_text_is_settings_or_a_user_error(text: str) -> None:
    with suppress(UserError):
        assert isinstance(parse_mapping(text, "there"), dict)


@given(
    st.dictionaries(st.text(min_size=1), st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text()))
)
def test_what_pyyaml_writes_is_read(settings: dict[str, object]) -> None:
    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            return True

    assert parse_mapping(yaml.dump(settings, Dumper=Plain), "there") == settings


def test_many_keys_take_no_time_of_their_square() -> None:
    text = "\n".join(f"k{number}: 1" for number in range(15_000))
    began = time.monotonic()
    assert len(parse_mapping(text, "there")) == 15_000
    assert time.monotonic() - began < 20  # a second or two; counting each among all took half a minute


def test_a_file_is_read_to_its_bound_and_no_further(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="/dev/zero has more than 1,048,576 bytes"):
        read_mapping_file(Path("/dev/zero"))
    with pytest.raises(UserError, match=r"gone\.yaml: cannot be read \(there is no such file"):
        read_mapping_file(tmp_path / "gone.yaml")
    (tmp_path / "a.yaml").write_bytes("name: Wärme".encode("cp1252"))
    with pytest.raises(UserError, match=r"a\.yaml is not UTF-8 text: .* at byte 7"):
        read_mapping_file(tmp_path / "a.yaml")


def test_overrides_are_bounded_alike() -> None:
    for value, message in (("&a [*a]", "aliases"), ("9" * 5000, "a number of 5000"), ("[" * 5000, "too deeply")):
        with pytest.raises(
            UserError, match=rf"^--set training\.seed=.*: the value is not valid YAML: .*{message}"
        ) as caught:
            apply_overrides({}, [f"training.seed={value}"])
        assert len(str(caught.value)) < 2 * MOST_QUOTED + 100


def test_messages_quote_two_hundred_characters() -> None:
    with pytest.raises(UserError, match="got 'xxx") as caught:
        parse_recipe({"data": {"views": "x" * 100_000}}, "there")
    assert len(str(caught.value)) < MOST_QUOTED + 100
    with pytest.raises(UserError, match="xxx… is no setting") as caught:
        parse_recipe({"x" * 100_000: 1}, "there")
    assert len(str(caught.value)) < 2 * MOST_QUOTED + 100
    with pytest.raises(UserError, match="and 4,980 more") as caught:
        parse_recipe({f"wrong{number}": 1 for number in range(5000)}, "there")
    assert len(str(caught.value).splitlines()) == 22


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({1: 2}, "1 is no setting: names are text"),
        ({"data": {2: 3}}, r"data\.2 is no setting: names are text"),
        ([1], "a mapping"),
    ],
)
def test_keys_that_are_no_words(settings: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_recipe(settings, "there")


@pytest.mark.parametrize("name", list_recipes())
def test_what_a_run_keeps_of_its_recipe_has_no_aliases(name: str) -> None:
    content = load_recipe(name).model_dump(mode="json")
    assert parse_mapping(yaml.safe_dump(content), "there") == content
    assert parse_recipe(content, "there") == load_recipe(name)
    assert isinstance(Recipe.model_validate(content), Recipe)


@pytest.mark.parametrize("name", list_protocols())
def test_what_is_shown_of_a_protocol_is_that_protocol(name: str, tmp_path: Path) -> None:
    from cmcgns.evaluation.select import describe_protocol

    shown, protocol = describe_protocol(name), load_protocol(name)
    (tmp_path / "shown.yaml").write_text(shown.replace(f'"{name}"', '"own/v1"', 1), encoding="utf-8")
    again = load_protocol(str(tmp_path / "shown.yaml"))
    assert again.task_settings == protocol.task_settings
    assert again.model_copy(update={"id": protocol.id, "settings": protocol.settings}) == protocol
    assert "  # column of the manifest" in shown
    assert shown.endswith(f"# sha256 {protocol.sha256}")
