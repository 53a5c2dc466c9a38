"""No cell of a report is a formula; numbers and other texts stay as they are."""

import csv
from dataclasses import dataclass

import pytest

from cmcgns.common.safe_text import safe_cell, terminal_text, without_controls, write_rows, write_spreadsheet


@pytest.mark.parametrize(
    "text", ["=cmd|' /C calc'!A0", "+1+cmd", "-2+3+cmd", "@SUM(A1)", "\t=1", " =1", "\r=1", "=1"]
)
def test_formulas_are_quoted(text):
    assert safe_cell(text) == "'" + text


@pytest.mark.parametrize("cell", ["-0.5", "+3", "-1e-3", ".5", -0.5, 3, None, "p-1", "a=b", "", "images/=1.png"])
def test_other_cells_stay_as_they_are(cell):
    assert safe_cell(cell) == cell


def test_a_report_is_plain_csv(tmp_path):
    write_spreadsheet(tmp_path / "out.csv", ["row", "path"], [[1, '=a,"b"'], [0.1, None]])
    with (tmp_path / "out.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["row", "path"], ["1", '\'=a,"b"'], ["0.1", ""]]


@dataclass(frozen=True)
class Row:
    name: str
    share: float | None = None


def test_rows_have_a_column_for_every_field(tmp_path):
    for rows in ([], [Row("=a", 0.1 + 0.2), Row("b")]):
        write_rows(tmp_path / "out.csv", Row, rows)
        lines = ["name,share", "'=a,0.30000000000000004", "b,"][: 1 + len(rows)]
        assert (tmp_path / "out.csv").read_text().splitlines() == lines


def test_no_text_moves_the_terminal():
    assert terminal_text("[red]a\x1b[2J\n") == "\\[red]a\\x1b[2J\\n"
    assert without_controls("a\x1b[2J\n", keep="\n") == "a\\x1b[2J\n"
