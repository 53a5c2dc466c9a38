"""What a package index shows needs nothing that is not there."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def test_the_page_of_the_package_has_no_relative_links() -> None:
    links = LINK.findall((ROOT / PROJECT["readme"]).read_text("utf-8"))
    assert links
    assert all(link.startswith("https://") for link in links), links
    assert all(url.startswith("https://") for url in PROJECT["urls"].values())


def test_extras_named_on_the_page_are_those_of_the_package() -> None:
    text = (ROOT / PROJECT["readme"]).read_text("utf-8")
    named = re.findall(r"`(\w+)`", text.partition("extras:")[2].partition(".")[0])
    assert set(named) == PROJECT["optional-dependencies"].keys() - {"dev"}
