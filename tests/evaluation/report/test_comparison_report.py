"""The report of a comparison: bold where the paired interval leaves out 0, and nowhere else."""

import csv
import html
import io
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from report_helpers import make_comparison

from cmcgns.evaluation.compare import Comparison, ComparisonRow
from cmcgns.evaluation.report import write_comparison


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comparison")
    write_comparison(folder, make_comparison())
    return folder


def difference(**changes: object) -> ComparisonRow:
    base = ComparisonRow(
        "rsna-linear/v1", "rsna", 10.0, "auroc", "", True, 0.8, 0.75, 0.05, 0.02, 0.08, 4003, 2741, 3, 2000, True
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def test_every_row_is_in_the_table_of_values(folder: Path) -> None:
    read = list(csv.DictReader(io.StringIO((folder / "comparison.csv").read_text("utf-8"))))
    rows = make_comparison().rows
    assert len(read) == len(rows) > 100
    for line, row in zip(read, rows, strict=True):
        assert line == {key: "" if value is None else str(value) for key, value in asdict(row).items()}


def test_every_row_is_printed(folder: Path) -> None:
    text = (folder / "comparison.md").read_text("utf-8")
    assert sum(line.startswith("| ") for line in text.splitlines()) >= len(make_comparison().rows)
    assert "siim-segmentation/v1 was run for one alone" in text


@pytest.mark.parametrize(("low", "clear"), [(0.02, True), (-0.01, False)])
def test_bold_means_clear(tmp_path: Path, low: float, clear: bool) -> None:
    page = write_comparison(tmp_path, Comparison("a", "b", (difference(low=low, clear=clear),), ())).read_text(
        "utf-8"
    )
    text = (tmp_path / "comparison.md").read_text("utf-8")
    assert ("<strong" in page) == clear
    assert ("**+0.050**" in text) == clear
    assert "+0.050" in page


def test_as_many_bold_as_clear(folder: Path) -> None:
    clear = sum(row.clear for row in make_comparison().rows)
    assert 0 < clear < len(make_comparison().rows)
    assert (folder / "comparison.html").read_text("utf-8").count("<strong") == clear
    assert (folder / "comparison.md").read_text("utf-8").count("**") == 2 * clear


def test_names_are_escaped_and_told_apart(tmp_path: Path) -> None:
    name = "<i>x</i>|$y$"
    page = write_comparison(tmp_path, Comparison(name, name, (difference(),), ())).read_text("utf-8")
    assert "<i>" not in page
    assert f"{name} (A) minus {name} (B)" in html.unescape(page)
    assert r"&lt;i&gt;x&lt;/i&gt;\|\$y\$ (A)" in (tmp_path / "comparison.md").read_text("utf-8")


def test_an_undefined_difference_is_a_dash(tmp_path: Path) -> None:
    empty = difference(b=None, difference=None, low=None, high=None, clear=False, note="one class is missing")
    page = write_comparison(tmp_path, Comparison("a", "b", (empty,), ())).read_text("utf-8")
    text = (tmp_path / "comparison.md").read_text("utf-8")
    assert "| AUROC |  | 10 % | 0.800 | – | – | – | 4,003 | 2,741 | 3 | undefined |" in text
    assert "one class is missing" in page
    assert "one class is missing" in text


def test_few_patients_and_chance_are_said(tmp_path: Path) -> None:
    rows = [difference(patients=12, label=f"class {number}") for number in range(40)]
    write_comparison(tmp_path, Comparison("a", "b", tuple(rows), ()))
    text = (tmp_path / "comparison.md").read_text("utf-8")
    assert "rsna-linear/v1 (12)" in text
    assert "40 of 40 differences are clear" in text
    assert "about 2 of 40" in text


def test_nothing_in_common(tmp_path: Path) -> None:
    page = write_comparison(tmp_path, Comparison("a", "b", (), ("rsna only in a",))).read_text("utf-8")
    assert "nothing that both were judged on" in page
    assert "rsna only in a" in page


def test_the_page_needs_nothing_else_and_is_the_same_again(folder: Path, tmp_path: Path) -> None:
    page = write_comparison(tmp_path, make_comparison()).read_bytes()
    assert page == (folder / "comparison.html").read_bytes()
    assert not re.search(rb'(?:src|href)="(?!data:|#)', page)
