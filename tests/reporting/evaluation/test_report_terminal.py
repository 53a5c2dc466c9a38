"""The printed tables: nothing is cut at the width of an old terminal."""

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console
from rich.table import Table

from cmcgns.evaluation.compare import Comparison
from cmcgns.reporting.evaluation.command import remarks_on
from cmcgns.reporting.evaluation.console import differences_table, figures_table, in_lines
from cmcgns.reporting.evaluation.names import interval_text, signed
from support.result_rows import make_comparison, make_rows

LONG = "phantom-segmentation/v1+a1b2c3@prepared-hospital"


def printed(table: Table, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), highlight=False)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def names_of(text: str, start: int, end: int) -> set[str]:
    """A column's cells of a table whose lines have blank ones between them, each joined again."""
    body = text.split("──\n")[1]
    return {"".join(line[start:end].strip() for line in row.split("\n")) for row in re.split(r"\n *\n", body)}


@pytest.mark.parametrize("width", [80, 100, 200])
def test_every_protocol_and_figure_can_be_read(width: int) -> None:
    row = next(row for row in make_rows() if row.seed is None)
    rows = [replace(row, protocol=LONG, metric="report_to_image_r@10"), replace(row, protocol="knn/v1", metric="map")]
    text = printed(figures_table(rows, width), width)
    assert all(len(line) <= width for line in text.splitlines())
    assert "…" not in text
    start = next(line for line in text.splitlines() if line.startswith("protocol")).index("figure")
    if width == 200:
        assert re.search(rf"^{re.escape(LONG)} +report_to_image_r@10 ", text, re.MULTILINE)
    else:
        assert LONG in names_of(text, 0, start)


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_what_is_missing_of_a_figure_and_its_interval_is_no_number(missing: float | None) -> None:
    assert interval_text(0.9123, 0.8971, 0.9256) == "0.912 (0.897 to 0.926)"
    assert interval_text(-0.01, -0.02, 0.03, signed) == "−0.010 (−0.020 to +0.030)"
    assert interval_text(0.5, missing, missing) == "0.500"
    assert interval_text(0.5, 0.4, missing, none="no interval") == "0.500 (no interval)"
    assert interval_text(missing, missing, missing, none="no interval") == "–"


def test_differences_fit_and_say_whom_they_favour() -> None:
    comparison = make_comparison()
    text = printed(differences_table(comparison, 80), 80)
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "…" not in text
    primary = [row for row in comparison.rows if row.primary and not row.label]
    end = next(line for line in text.splitlines() if line.startswith("protocol")).index("figure")
    assert {row.protocol for row in primary} <= names_of(text, 0, end)
    clear = next(row for row in primary if row.clear)
    wide = printed(differences_table(replace(comparison, rows=(clear,)), 160), 160)
    assert re.search(r"\+\d\.\d{3} \(\+\d\.\d{3} to \+\d\.\d{3}\) +A better", wide)


def test_figures_that_are_better_when_lower_are_named() -> None:
    row = next(row for row in make_comparison().rows if row.metric == "brier" and not row.label)
    found = replace(row, primary=True, difference=0.1, low=0.05, high=0.15, clear=True)
    text = printed(differences_table(Comparison("a", "b", (found,), ()), 160), 160)
    assert "B better" in text
    assert "lower is better: brier" in text
    assert "lower is better" not in printed(differences_table(make_comparison(), 160), 160)


@pytest.mark.parametrize(
    ("name", "width", "lines"),
    [
        ("rsna-linear/v1", 20, ["rsna-linear/v1"]),
        ("rsna-linear/v1", 12, ["rsna-linear/", "v1"]),
        ("report_to_image_r@10", 13, ["report_to_", "image_r@10"]),
        ("averyveryverylongname/v1", 9, ["aver…ame/", "v1"]),
        ("", 9, [""]),
    ],
)
def test_names_break_where_their_parts_are_joined(name: str, width: int, lines: list[str]) -> None:
    assert in_lines(name, width).split("\n") == lines


def test_names_are_no_markup() -> None:
    row = next(row for row in make_rows() if row.seed is None)
    text = printed(figures_table([replace(row, protocol="[red]x[/red]")], 100), 100)
    assert "[red]x[/red]" in text
    title = printed(differences_table(replace(make_comparison(), first="[bold]x"), 160), 160)
    assert "A: [bold]x, B: MGCA <again>" in title


def test_a_remark_is_said_once_with_all_that_it_is_about() -> None:
    row = next(row for row in make_rows() if row.seed is None)
    note = "mean over 5 of 14 classes; left out: Hernia (no positive test patients)"
    rows = [replace(row, protocol="knn/v1", fraction=share, note=note, leakage="") for share in (10.0, 100.0)]
    rows.append(replace(row, protocol="linear/v1", fraction=None, note="", leakage="1 of 9 patients"))
    expected = {note: ["knn/v1 (10 %)", "knn/v1 (100 %)"], "LEAKAGE, 1 of 9 patients": ["linear/v1"]}
    assert remarks_on(rows) == expected
