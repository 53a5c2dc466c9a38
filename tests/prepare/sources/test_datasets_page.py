"""The page about datasets says for every source where to get it, what to unpack where, and the one command."""

import re
from pathlib import Path

import pytest

from cmcgns.data.manifest import NUMBERS, TEXT
from cmcgns.prepare.sources import get_source, source_names

PAGE = (Path(__file__).parents[3] / "docs" / "datasets.md").read_text("utf-8")


@pytest.mark.parametrize("name", source_names())
def test_every_source_has_its_section_with_address_and_command(name):
    section = re.split(r"^### ", PAGE, flags=re.MULTILINE)
    text = next(part for part in section if part.startswith(name + "\n"))
    assert f"cmcgns prepare {name} --root DIR --out" in text
    assert get_source(name).url in text
    files = [line.split()[0].split("/")[-1] for line in get_source(name).layout if ".csv" in line.split()[0]]
    assert all(file.strip(",;") in text for file in files)


def test_every_column_of_the_manifest_is_explained():
    table = PAGE.split("## The manifest")[1]
    assert all(f"`{column}`" in table for column in (*TEXT, *NUMBERS))
