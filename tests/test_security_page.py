"""SECURITY.md states the bounds that the code has, and what it calls never done is not done."""

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "SECURITY.md").read_text("utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("|") and "`" in line]
BOUNDS = [
    (file, name, cells[3])
    for cells in (line.split("|") for line in ROWS)
    for file, name in re.findall(r"`([\w/]+)\.py:(\w+)`", cells[4])
]
SOURCES = sorted((ROOT / "src").rglob("*.py"))


@pytest.mark.parametrize(("file", "name", "stated"), BOUNDS, ids=[name for _, name, _ in BOUNDS])
def test_bounds_are_those_of_the_code(file: str, name: str, stated: str) -> None:
    value = getattr(importlib.import_module(f"cmcgns.{file.replace('/', '.')}"), name)
    assert stated.strip() == "the same, in bytes" or f"{value:,g}" in stated or f"{value:,}" in stated


def test_most_bounds_are_stated() -> None:
    assert len(BOUNDS) >= 14


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([\w/]+\.py)(?::\w+)?`", PAGE))))
def test_files_are_there(path: str) -> None:
    assert (ROOT / "src" / "cmcgns" / path).is_file()


def calls() -> list[tuple[str, str, set[str]]]:
    """File, name and `keyword=value` of every call in the package."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                words = {f"{word.arg}={ast.unparse(word.value)}" for word in node.keywords}
                found.append((path.name, ast.unparse(node.func), words))
    return found


CALLS = calls()


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (r"torch\.load", "weights_only=True"),
        (r"np\.load", "allow_pickle=False"),
        (r"(?:auto_model|\w*Auto\w+)\.from_pretrained", "trust_remote_code=False"),
        (r"Image\.open", "formats="),
        (r"Environment", "autoescape=True"),
    ],
)
def test_every_such_call_is_the_safe_one(call: str, word: str) -> None:
    found = [(file, words) for file, name, words in CALLS if re.fullmatch(call, name)]
    assert found
    for file, words in found:
        assert any(each.startswith(word) for each in words), f"{file}: {call} without {word}"


def test_what_is_never_called() -> None:
    never = re.compile(
        r"eval|exec|compile|__import__|os\.(?:system|popen|exec\w*|spawn\w*)|subprocess\.\w+|pickle\.\w+|marshal\.\w+|shelve\.\w+"
        r"|yaml\.(?:load|full_load|unsafe_load|load_all)|torch\.jit\.load|torch\.hub\.\w+|joblib\.load|pd\.read_pickle"
        r"|pd\.eval|\w+\.extractall|\w+\.extract"
    )
    assert [(file, name) for file, name, _ in CALLS if never.fullmatch(name)] == []
    assert {word for _, _, words in CALLS for word in words if word.startswith("shell=")} == set()


def test_pages_have_no_scripts() -> None:
    for path in (ROOT / "src").rglob("*"):
        if path.suffix in (".j2", ".html", ".css"):
            text = path.read_text("utf-8").lower()
            assert "<script" not in text, path.name
            assert "javascript:" not in text, path.name
            assert not re.search(r"(?:src|href)=[\"']?https?:|@import|url\(\s*[\"']?https?:", text), path.name
