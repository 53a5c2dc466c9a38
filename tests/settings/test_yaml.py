"""YAML of users: bounded, without aliases, and messages that quote little."""

from pathlib import Path

import pytest

from cmcgns.common.errors import UserError
from cmcgns.evaluation.protocols import load_protocol
from cmcgns.settings.yaml import MOST_BYTES, apply_overrides, parse_mapping, read_mapping_file

LAUGHS = "a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n"


@pytest.mark.parametrize(("text", "fault"), [
    (LAUGHS, "alias"),
    ("a: " + "[" * 30_000, "nested too deeply"),
    ("a: " + "9" * 5000, "5000 digits"),
    ("a: 2020-13-45", "month"),
    ("a: 1\na: 2", "a is given twice"),
    ("a: [", "not valid YAML"),
])  # fmt: skip
def test_what_is_not_read_is_named_in_a_short_message(text: str, fault: str) -> None:
    with pytest.raises(UserError, match=fault) as caught:
        parse_mapping(text, "mine.yaml")
    assert str(caught.value).startswith("mine.yaml is not valid YAML: ")
    assert len(str(caught.value)) < 400


def test_files_and_overrides_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "large.yaml").write_text("a: 1\n" + "#" * MOST_BYTES)
    with pytest.raises(UserError, match=r"large\.yaml has more than 1,048,576 bytes"):
        read_mapping_file(tmp_path / "large.yaml")
    (tmp_path / "marked.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_mapping_file(tmp_path / "marked.yaml") == {"a": 1}
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    with pytest.raises(UserError, match=r"latin\.yaml is not UTF-8 text"):
        read_mapping_file(tmp_path / "latin.yaml")
    for override, fault in (("a=&b [*b]", "alias"), ("a=" + "[" * 30_000, "nested too deeply"), ("a", "key=value")):
        with pytest.raises(UserError, match=fault) as caught:
            apply_overrides({}, [override])
        assert len(str(caught.value)) < 500


def protocol(tmp_path: Path, text: str) -> str:
    (tmp_path / "mine.yaml").write_text(text)
    return str(tmp_path / "mine.yaml")


@pytest.mark.parametrize(("task", "command"), [("knn", "knn/v1"), ("zero-shot", "zero-shot/v1")])
def test_unknown_keys_of_a_protocol_point_to_a_protocol_of_the_task(tmp_path: Path, task: str, command: str) -> None:
    base = f"base: {task}/v1\nid: mine/v1\n"
    for text in (f"{base}qqqq: 1", f"{base}settings: {{qqqq: 1}}"):
        with pytest.raises(UserError, match=rf"qqqq is no setting\. `cmcgns protocols show {command}` shows all"):
            load_protocol(protocol(tmp_path, text))
    with pytest.raises(UserError, match=r"seedz is no setting\. Did you mean seeds\?"):
        load_protocol(protocol(tmp_path, f"{base}seedz: 1"))


def test_messages_quote_at_most_200_letters(tmp_path: Path) -> None:
    wrong = "base: linear/v1\nid: mine/v1\nseeds: " + "z" * 9999 + "\n" + "".join(f"k{n}: 1\n" for n in range(50))
    with pytest.raises(UserError, match="and 31 more") as caught:
        load_protocol(protocol(tmp_path, wrong))
    assert len(max(str(caught.value).splitlines(), key=len)) < 400
    with pytest.raises(UserError, match=r"no protocol is called x{199}…\.") as caught:
        load_protocol("x" * 5000)
    assert len(str(caught.value)) < 400


def test_a_base_without_a_title_is_named_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("id: base/v1\ntask: linear\n")
    assert load_protocol(protocol(tmp_path, "base: base.yaml\nid: mine/v1\n")).title == "base.yaml (mine/v1)"
