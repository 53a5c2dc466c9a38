"""Delimited text (csv): separator and quotes are found, cells are read strictly, lines are counted against rows.

Strictly, because a quote that is left open makes one cell of all the rows below it, and nobody is told.
"""

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice, product
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from cmcgns.common.errors import UserError
from cmcgns.data.text_files import check_encoding, open_text, unreadable

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
MAX_CELL = 2**24  # characters
MAX_COLUMNS = 10_000
MAX_ROWS = 20_000_000
_SAMPLE = 1_000  # lines
_CHUNK = 20_000  # rows
_STATED = re.compile(r'"?sep=(.)"?\s*')  # the first line of some spreadsheets' files
_OPENING = re.compile(r"(?:^|[,;\t|])\s*([\"'])")
_LINE_END = re.compile(r"\r\n|\r|\n")
_DOUBLE = 'inside a quoted cell a quote is written twice ("")'


@dataclass(frozen=True)
class TextFormat:
    """How a text table is written, as far as the user says; what is empty is found out.

    Attributes:
        separator: one character, or its name (comma, semicolon, tab, bar).
        encoding: as Python names it.

    Raises:
        UserError: no separator or encoding.
    """

    separator: str = ""
    encoding: str = ""

    def __post_init__(self) -> None:
        names = {name: mark for mark, name in SEPARATORS.items()} | {"\\t": "\t"}
        object.__setattr__(self, "separator", names.get(self.separator.strip(" ").lower(), self.separator))
        if self.separator and not re.fullmatch(r"[^\w\s\"'.\\/-]|\t", self.separator):
            raise UserError(f"separator {self.separator[:40]!r}: one of {', '.join(names)} or another single mark")
        if self.encoding:
            check_encoding(self.encoding)


class Cells(NamedTuple):
    """A text table: the cells of its first line as they are, and (n, k) text of the others, missing ones empty."""

    header: list[str]
    frame: pd.DataFrame


class _Record(NamedTuple):
    first: int  # line, counted from 1
    last: int
    cells: list[str]


class _Dialect(NamedTuple):
    separator: str
    quote: str


def read_cells(path: Path, form: TextFormat | None = None) -> Cells:
    """All cells of a text table; blank lines, and rows at the end without any content, are none.

    Raises:
        UserError: missing, empty, no text, rows longer than the header, quotes that are not closed.
    """
    form = form or TextFormat()
    with open_text(path, form.encoding) as lines:
        sample = list(islice(lines, _SAMPLE))
        stated = _STATED.fullmatch(sample[0]) if sample else None
        skipped = 1 if stated else 0
        dialect = _find_dialect(sample[skipped:], form.separator or (stated[1] if stated else ""))
        return _collect(path, _records(path, chain(sample[skipped:], lines), dialect, skipped), dialect)


def _find_dialect(sample: list[str], separator: str) -> _Dialect:
    """The separator and quote under which the first rows have as many cells as the header, and the header most."""
    best, most = _Dialect(separator or ",", '"'), (False, False, 0)
    for dialect in map(_Dialect._make, product(separator or SEPARATORS, _possible_quotes(sample))):
        widths, readable = [], True
        try:
            for record in _records(Path(), sample, dialect):
                widths += [len(record.cells)] if record.cells else []
        except _OpenQuote as error:  # the wrong dialect, or the sample ends within a cell
            readable = error.at_end and len(sample) == _SAMPLE
        score = (widths[0] > 1, readable and len(set(widths)) == 1, widths[0]) if widths else most
        if score > most:
            best, most = dialect, score
    return best


def _possible_quotes(sample: list[str]) -> str:
    """Single marks are quotes where the header has them, or where cells begin with them, and none with a double."""
    if sample and sample[0].lstrip().startswith("'"):
        return "'"
    opening = {mark for line in sample for mark in _OPENING.findall(line)}
    return "\"'" if opening == {"'"} else '"'


class _OpenQuote(UserError):
    """Cells that cannot be told apart; `at_end`: because the text ends within one."""

    at_end = False


def _records(path: Path, lines: Iterable[str], dialect: _Dialect, skipped: int = 0) -> Iterator[_Record]:
    csv.field_size_limit(MAX_CELL)
    reader = csv.reader(
        lines, delimiter=dialect.separator, quotechar=dialect.quote, strict=True, skipinitialspace=True
    )
    while True:
        first = reader.line_num + skipped + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            last = reader.line_num + skipped
            refused = _OpenQuote(f"{path} cannot be read: line {first}: {_open_quote(first, last, str(error))}")
            refused.at_end = "end of data" in str(error)
            raise refused from error
        yield _Record(first, reader.line_num + skipped, cells)


def _open_quote(first: int, last: int, error: str) -> str:
    if "limit" in error:
        return f"a cell of more than {MAX_CELL:,} characters"
    if "end of data" in error:
        return f"a quote that opens in this row is never closed (until line {last}, the last one); {_DOUBLE}"
    where = "" if last == first else f", in line {last}: is a quote of line {first} not closed?"
    return f"text follows a closing quote{where or ' in this row'}; {_DOUBLE}"


def _collect(path: Path, records: Iterator[_Record], dialect: _Dialect) -> Cells:
    header = next((each.cells for each in records if any(each.cells)), [])
    width = len(header)
    if width == 0:
        raise unreadable(path, "it is empty")
    if width > MAX_COLUMNS:
        raise unreadable(path, f"{width:,} columns are more than the bound {MAX_COLUMNS:,}")
    chunks: list[pd.DataFrame] = []
    rows: list[list[str]] = []
    suspects: list[_Suspect] = []
    blank = number = 0
    for record in records:
        if not any(record.cells):  # held back: at the end of a table they are no rows
            blank += len(record.cells) > 0
            continue
        rows += [[""] * width] * blank
        rows.append(_filled(path, record, width, dialect))
        number, blank = number + blank + 1, 0
        if record.last > record.first and (suspect := _suspect(record, width, dialect.separator)):
            suspects.append(suspect)
        if len(rows) >= _CHUNK:
            chunks.append(_frame(rows, width))
            rows = []
        if number > MAX_ROWS:
            raise unreadable(path, f"more than {MAX_ROWS:,} rows")
    if rows or not chunks:
        chunks.append(_frame(rows, width))
    frame = pd.concat(chunks, ignore_index=True)
    _refuse_swallowed_rows(path, suspects, frame[0])
    return Cells(header, frame)


def _filled(path: Path, record: _Record, width: int, dialect: _Dialect) -> list[str]:
    """The cells of a row, as many as the header has."""
    missing = width - len(record.cells)
    if missing < 0:
        mark = SEPARATORS.get(dialect.separator, dialect.separator)
        hint = f"a cell with a {mark} in it stands in quotes"
        raise unreadable(path, f"line {record.first} has {len(record.cells)} cells, the header {width}; {hint}")
    return record.cells + [""] * missing if missing else record.cells


def _frame(rows: list[list[str]], width: int) -> pd.DataFrame:
    columns = zip(*rows, strict=True) if rows else ([] for _ in range(width))
    return pd.DataFrame({place: pd.Series(list(cells), dtype="str") for place, cells in enumerate(columns)})


class _Suspect(NamedTuple):
    """A row whose cells hold a line that could be a row of its own, and the first cell of that line."""

    record: _Record
    inside: str


def _suspect(record: _Record, width: int, separator: str) -> _Suspect | None:
    """A row over several lines, one of which has as many cells as the header and begins with a name, no prose."""
    for place, cell in enumerate(record.cells):
        if "\n" not in cell and "\r" not in cell:
            continue
        lines = _LINE_END.split(cell)[1:]
        following = len(record.cells) - place - 1  # the last line goes on behind the closing quote
        for number, line in enumerate(lines, start=1):
            if line.count(separator) + 1 + (following if number == len(lines) else 0) != width:
                continue
            first = line.partition(separator)[0].strip()
            if len(first) > 2 and " " not in first and not first.isalpha():
                return _Suspect(record, first)
    return None


def _refuse_swallowed_rows(path: Path, suspects: list[_Suspect], first_cells: pd.Series) -> None:
    """Stop at a cell that holds whole rows: those that begin as the others do. A stray quote opens it."""
    known = {_shape(cell) for cell in first_cells.unique()} if suspects else set()
    for record, inside in suspects:
        if _shape(inside) in known:
            text = "a quote that opens in this row closes in line {} only, and rows of their own are between; {}"
            raise unreadable(path, f"line {record.first}: {text.format(record.last, _DOUBLE)}")


def _shape(cell: str) -> str:
    """What kind of name a cell is: "a0/a.a" for "p10/x.png"."""
    first = re.split(r"[,;\t|\r\n]", cell, maxsplit=1)[0]
    return re.sub(r"\d+", "0", re.sub(r"[^\W\d_]+", "a", first.strip()))
