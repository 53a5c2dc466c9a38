"""Separator, quotes and encoding are found or refused with a message; no quote swallows rows unnoticed."""

import csv
import gzip
import io
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cmcgns.common.errors import UserError
from cmcgns.data import text_files
from cmcgns.data.delimited import TextFormat, read_cells
from cmcgns.data.tables import find_table, read_table

TABLE = "name,place,report\n" + "".join(f"p/{number}.png,there,Heart normal {number}.\n" for number in range(36))


def write(folder: Path, content: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(path: Path, form: TextFormat | None = None) -> str:
    with pytest.raises(UserError) as caught:
        read_cells(path, form)
    return str(caught.value)


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_other_separators_are_found_beside_commas_in_the_text(tmp_path: Path, mark: str) -> None:
    path = write(tmp_path, TABLE.replace(",", mark).replace("normal", "normal, clear, or so"))
    header, frame = read_cells(path)
    assert header == ["name", "place", "report"]
    assert frame.iloc[7].tolist() == ["p/7.png", "there", "Heart normal, clear, or so 7."]
    assert len(frame) == 36


def test_a_separator_that_is_not_found_can_be_said(tmp_path: Path) -> None:
    path = write(tmp_path, TABLE.replace(",", "~"))
    with pytest.raises(
        UserError, match=r"missing column name .*name~place~report.*--separator MARK.*data\.separator"
    ):
        read_table(path, ["name"])
    assert read_cells(path, TextFormat("~")).header == ["name", "place", "report"]
    assert TextFormat("semicolon") == TextFormat(";")
    assert TextFormat("\\t") == TextFormat("tab") == TextFormat("\t")
    for wrong in ("ab", "x", '"', "\n"):
        with pytest.raises(UserError, match="separator"):
            TextFormat(wrong)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_unicode_of_any_kind_is_found(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path, TABLE.replace("Heart", "Herz größer").encode(encoding))
    header, frame = read_cells(path)
    assert header[0] == "name"
    assert frame[2][0] == "Herz größer normal 0."


def test_other_encodings_are_asked_for_with_the_line(tmp_path: Path) -> None:
    path = write(tmp_path, TABLE.replace("normal 4", "größer").encode("cp1252"))
    message = refused(path)
    assert "t.csv cannot be read: byte 0xf6 in line 6 is not utf-8" in message
    assert "`prepare table --encoding NAME`, `pretrain --set data.encoding=NAME`" in message
    assert read_cells(path, TextFormat(encoding="cp1252")).frame[2][4] == "Heart größer."
    with pytest.raises(UserError, match="encoding 'zip' is not known; try one of utf-8"):
        TextFormat(encoding="zip")
    marked = write(tmp_path, TABLE.encode("utf-8-sig"))
    assert "byte order mark says utf-8-sig, not cp1252" in refused(marked, TextFormat(encoding="cp1252"))
    assert read_cells(marked, TextFormat(encoding="utf8")).header[0] == "name"


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (('"Heart normal 1.', ""), ('"Heart normal 19.', ""), "line 3: text follows a closing quote, in line 21"),
        (
            ('"Heart normal 1.', ""),
            ("Heart normal 19.", '"'),
            "line 3: a quote that opens in this row closes in line 21",
        ),
        (('"Heart normal 1.', ""), ("", ""), "line 3: a quote that opens in this row is never closed"),
    ],
)
def test_a_quote_that_is_left_open_is_named(tmp_path: Path, first, second, words: str) -> None:
    """Read leniently, 18 of the 36 rows were gone without a word, or the error named the end of the file."""
    text = TABLE.replace("Heart normal 1.", "".join(first))
    if second[0]:
        text = text.replace("Heart normal 19.", "".join(second))
    assert words in refused(write(tmp_path, text))


def test_reports_of_several_lines_are_no_open_quotes(tmp_path: Path) -> None:
    report = "FINDINGS: heart normal,\nlungs clear, no effusion\n\n1. Nodule, left, 3 mm\nNormal, or so, here.\r\nEnd"
    text = io.StringIO()
    rows = [[f"p/{number}.png", "there", report] for number in range(2_000)]
    csv.writer(text).writerows([["name", "place", "report"], *rows])
    frame = read_cells(write(tmp_path, text.getvalue())).frame
    assert frame.to_numpy().tolist() == rows


def test_rows_of_no_cells_and_columns_of_no_name_at_the_end_are_none(tmp_path: Path) -> None:
    text = "sep=;\n" + TABLE.replace(",", ";").replace("\n", ";;\n") + ";;;;\n" * 3 + "\n\n"
    frame = read_table(write(tmp_path, text))
    assert list(frame.columns) == ["name", "place", "report"]
    assert len(frame) == 36
    inside = read_table(write(tmp_path, "a,b\n1,2\n,\n3,4\n,\n"))
    assert inside["a"].tolist() == ["1", "", "3"], "rows keep their numbers"


def test_single_marks_are_quotes_where_the_table_says_so(tmp_path: Path) -> None:
    quoted = TABLE.replace("Heart normal 5.", "'Heart normal, it''s 5.'")
    assert read_cells(write(tmp_path, quoted)).frame[2][5] == "Heart normal, it's 5."
    everywhere = "".join(",".join(f"'{c}'" for c in line.split(",")) + "\n" for line in TABLE.splitlines())
    assert read_cells(write(tmp_path, everywhere)).frame.iloc[3].tolist() == ["p/3.png", "there", "Heart normal 3."]
    plain = TABLE.replace("Heart normal 5.", "'Normal'").replace("Heart normal 6.", '"Normal, clear."')
    assert read_cells(write(tmp_path, plain)).frame[2][5] == "'Normal'"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04rest", "an Excel workbook or a zip archive; open it there and save the sheet as CSV"),
        (b"\xd0\xcf\x11\xe0", "an Excel workbook"),
        (b"PAR1", "a parquet file; its name has to end in .parquet"),
        (b"BZh9", "packed with bzip2; unpack it first"),
        (b"\xfd7zXZ\x00", "packed with xz; unpack it"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x1f\x8b\x08damaged", "cannot be unpacked"),
        (b"\n \n", "it is empty"),
        (b"\xff\xfe", "it is empty"),
    ],
)
def test_what_is_no_csv_file_is_named_by_its_content(tmp_path: Path, content: bytes, words: str) -> None:
    message = refused(write(tmp_path, content))
    assert "t.csv cannot be read: " in message
    assert words in message


def test_gzip_without_end_is_stopped_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, gzip.compress(b"a,b\n" + (b"1," + b"x" * 4_000 + b"\n") * 5_000), "t.csv.gz")
    assert path.stat().st_size < 2**16
    assert "t.csv.gz cannot be read: more than 16,777,216 bytes of text" in refused(path)
    monkeypatch.setattr(text_files, "MAX_LINE", 2**20)
    one_line = write(tmp_path, gzip.compress(b"a,b\n" + b"x" * 2**21), "l.csv.gz")
    assert "more than 1,048,576 characters in line 2" in refused(one_line)


def test_gzip_is_known_by_its_content(tmp_path: Path) -> None:
    assert len(read_cells(write(tmp_path, gzip.compress(TABLE.encode()), "unnamed.csv")).frame) == 36


def test_bounds_of_rows_columns_and_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "10,001 columns are more than the bound 10,000" in refused(write(tmp_path, "a," * 10_000 + "b\n1\n"))
    monkeypatch.setattr("cmcgns.data.delimited.MAX_ROWS", 30)
    assert "more than 30 rows" in refused(write(tmp_path, TABLE))
    monkeypatch.setattr("cmcgns.data.delimited.MAX_CELL", 100)
    assert "a cell of more than 100 characters" in refused(write(tmp_path, TABLE.replace("Heart", "x" * 200)))
    monkeypatch.setattr(text_files, "MAX_BYTES", 100)
    assert "more than 100 bytes of text" in refused(write(tmp_path, TABLE))


def test_errors_quote_little_of_the_input(tmp_path: Path) -> None:
    path = write(tmp_path, ",".join(f"column {number}" for number in range(1_000)) + "\n1\n")
    with pytest.raises(UserError) as caught:
        read_table(path, ["image_path"])
    assert len(str(caught.value).replace(str(path), "")) < 400


def test_a_folder_of_spreadsheets_alone_gets_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "own.xlsx").touch()
    with pytest.raises(UserError, match=r"own\.xlsx is a spreadsheet: save it as CSV"):
        find_table(tmp_path)


CELL = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"], include_characters="\n,;\t|'\"é漢"), max_size=12
).map(str.strip)
DIALECTS = st.fixed_dictionaries(
    {
        "separator": st.sampled_from(",;\t|"),
        "quoting": st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
        "lines": st.sampled_from(["\n", "\r\n", "\r"]),
        "encoding": st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
        "packed": st.booleans(),
    }
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cells=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=5), dialect=DIALECTS)
def test_any_dialect_gives_the_same_cells_or_is_refused(tmp_path: Path, cells, dialect) -> None:
    rows = [[f"{number}.png", *pair] for number, pair in enumerate(cells)]
    text = io.StringIO()
    # Beside other line ends, Python's own writer leaves a line break in a cell unquoted, which nobody can undo.
    quoting = csv.QUOTE_ALL if dialect["lines"] == "\r" else dialect["quoting"]
    csv.writer(text, delimiter=dialect["separator"], quoting=quoting, lineterminator=dialect["lines"]).writerows(
        [["image_path", "report", "findings"], *rows]
    )
    content = text.getvalue().encode(dialect["encoding"])
    path = write(tmp_path, gzip.compress(content) if dialect["packed"] else content, "any.csv")
    try:
        frame = read_table(path)
    except UserError as error:
        if "any.csv cannot be read: line" not in str(error):  # the separator is found; quotes alone may be in doubt
            raise
        return
    expected = pd.DataFrame(rows, columns=["image_path", "report", "findings"], dtype="str")
    pd.testing.assert_frame_equal(frame.map(str.strip).astype("str"), expected.map(str.strip).astype("str"))
