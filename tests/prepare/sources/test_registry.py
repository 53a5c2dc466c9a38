"""Every dataset has a reader and says where it comes from."""

import importlib.util
import re
from pathlib import Path

import pytest

from cmcgns.common.errors import UserError
from cmcgns.prepare.sources import get_source, source_names
from cmcgns.prepare.sources.base import SourceOptions

NAMES = ["mimic-cxr", "openi", "chexpert", "rsna", "covidx", "siim", "object-cxr", "nih", "vindr", "table"]


def test_names() -> None:
    assert source_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_source_is_described(name: str) -> None:
    module = f"cmcgns.prepare.sources.{name.replace('-', '_')}"
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not there")
    source = get_source(name)
    assert source.name == name
    assert all((source.title, source.licence, source.layout))
    assert name == "table" or re.match(r"https://\S+$", source.url)
    assert callable(source.read)


@pytest.mark.parametrize("name", NAMES[:-1])
def test_a_folder_of_another_layout_is_told_what_is_expected(name: str, tmp_path: Path) -> None:
    source = get_source(name)
    with pytest.raises(UserError, match=str(tmp_path)) as caught:
        source.read(tmp_path, SourceOptions())
    assert all(f"\n  {line}" in str(caught.value) for line in source.layout)


@pytest.mark.parametrize(("wrong", "right"), [("mimic", "mimic-cxr"), ("NIH", "nih"), ("object_cxr", "object-cxr")])
def test_nearest_name(wrong: str, right: str) -> None:
    with pytest.raises(UserError, match=f"Did you mean {right}"):
        get_source(wrong)


def test_no_nearest_name() -> None:
    with pytest.raises(UserError, match=r"no dataset is called 'zzzz' \(known: mimic-cxr, "):
        get_source("zzzz")
