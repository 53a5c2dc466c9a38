"""Tables of any spelling are read alike for every verb; what is wrong with one is said with its name."""

import gzip
import hashlib
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cmcgns.common.errors import UserError
from cmcgns.data.pairs.rows import read_pairs
from cmcgns.data.tables import as_text, find_table, plain_name, read_table, table_sha256
from cmcgns.prepare.sources.base import SourceOptions
from cmcgns.prepare.sources.table import read as read_own
from cmcgns.settings.config import DataSettings


def test_a_table_is_text_whatever_marks_and_line_ends_it_has(tmp_path):
    plain, marked = tmp_path / "a.csv", tmp_path / "b.csv.gz"
    plain.write_bytes(b'id, code,n\r\n007,"a, b",1.0\r\n008,,NA\r\n')
    marked.write_bytes(gzip.compress(b"\xef\xbb\xbf" + plain.read_bytes().replace(b"\r\n", b"\n")))
    for path in (plain, marked):
        assert read_table(path, ["id", "code"]).to_dict("list") == {
            "id": ["007", "008"], "code": ["a, b", ""], "n": ["1.0", "NA"],
        }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b"id,id\n1,2\n", "column 'id' stands there twice"),
        (b"name\n1\n", "missing column id .found: name"),
        (b"id,b\n1,2\n3,4,5\n", "cannot be read.*line 3"),
        (b"id\n\xff\xfe\x00\n", "cannot be read"),
    ],
)
def test_faults_of_a_table_are_named(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(UserError, match=rf"t\.csv.*{message}"):
        read_table(tmp_path / "t.csv", ["id"])
    with pytest.raises(UserError, match=r"gone\.csv: no such file"):
        read_table(tmp_path / "gone.csv")


@pytest.mark.parametrize("twin", ["patient id", "PatientID", "patient-id?", "Patient_Id"])
def test_columns_that_differ_in_marks_alone_are_refused_by_every_verb(tmp_path, twin):
    assert plain_name(twin) == plain_name("patient_id") == "patientid"
    table = tmp_path / "own.csv"
    frame = pd.DataFrame({"image_path": ["a.png"], "report": ["Clear."], "patient_id": ["p1"], twin: ["p2"]})
    frame.to_csv(table, index=False)
    (tmp_path / "a.png").write_bytes(b"")
    said = rf"own\.csv: the columns patient_id and {re.escape(twin)} are both there; say which one is meant with"
    quoted = re.escape(twin) + ("" if twin.isidentifier() else "'")
    other = r"data\.columns\.patient_id"
    with pytest.raises(UserError, match=rf"{said} --set .?{other}={quoted} \(or --set {other}=patient_id\)"):
        read_pairs(table, DataSettings())
    with pytest.raises(
        UserError, match=rf"{said} --column .?patient_id={quoted} \(or --column patient_id=patient_id\)"
    ):
        read_own(table, SourceOptions())
    for meant, patient in ((twin, "p2"), ("patient_id", "p1")):
        pairs = read_pairs(table, DataSettings(columns={"patient_id": meant}))
        own = read_own(table, SourceOptions(columns={"patient_id": meant})).frame
        assert [*pairs.frame["patient_id"], *own["patient_id"]] == [patient, f"table:{patient}"]


def test_marks_of_other_letters_are_no_twins(tmp_path):
    assert plain_name("Größe (cm)") == "grössecm"
    assert plain_name("年齢") != plain_name("性別")


def test_rows_shorter_than_the_header_end_in_empty_cells(tmp_path):
    (tmp_path / "t.csv").write_text("a,b,c\n1,2,3\n4\n")
    assert read_table(tmp_path / "t.csv").to_dict("list") == {"a": ["1", "4"], "b": ["2", ""], "c": ["3", ""]}


def test_parquet_keeps_its_types_and_reads_what_is_asked_for(tmp_path):
    frame = pd.DataFrame({"id": [1, 2], "x": [0.5, None], "text": ["a", None]})
    frame.to_parquet(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.parquet"), frame)
    assert list(read_table(tmp_path / "t.parquet", columns=["x", "id"])) == ["x", "id"]
    with pytest.raises(UserError, match=r"t\.parquet: missing column y \(found: id, x, text\)"):
        read_table(tmp_path / "t.parquet", ["y"])


def test_cells_as_text():
    assert as_text(pd.Series([12.0, np.nan])).tolist() == ["12", ""]
    assert as_text(pd.Series([12.5, np.nan])).tolist() == ["12.5", ""]
    assert as_text(pd.Series([" a ", None, "NaN"], dtype=object)).tolist() == ["a", "", ""]
    assert as_text(pd.Series(["a", None], dtype="category")).tolist() == ["a", ""]
    assert as_text(pd.Series([True, False])).tolist() == ["True", "False"]


def test_a_folder_stands_for_its_only_table(tmp_path):
    (tmp_path / "a.csv.gz").touch()
    (tmp_path / "notes.txt").touch()
    assert find_table(tmp_path) == tmp_path / "a.csv.gz"
    (tmp_path / "B.PARQUET").touch()
    with pytest.raises(UserError, match=r"found: B\.PARQUET, a\.csv\.gz\); name the file"):
        find_table(tmp_path)
    assert find_table(tmp_path, ("x.csv", "a.csv.gz")) == tmp_path / "a.csv.gz"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b"image_path~report\n0.png~Normal.\n", "image_path.*separator is none that is found by itself"),
        (b"PK\x03\x04", "an Excel workbook or a zip archive; open it there and save the sheet as CSV"),
        (b"image_path,report,report\n0.png,a,b\n", "column 'report' stands there twice"),
        (b"image_path,report\n0.png,a,b\n", "cannot be read"),
        (
            "image_path,report\n0.png,ä\n".encode("latin-1"),
            "byte 0xe4 in line 2 is not utf-8;.*--encoding NAME.*data.encoding=NAME",
        ),
    ],
)
def test_pretraining_and_preparing_say_the_same(tmp_path, content, message):
    file = tmp_path / "own.csv"
    file.write_bytes(content)
    for read in (lambda: read_pairs(file, DataSettings()), lambda: read_own(file, SourceOptions())):
        with pytest.raises(UserError, match=rf"own\.csv.*{message}"):
            read()


def test_lists_in_cells_are_refused_where_text_is_wanted(tmp_path):
    table = pd.DataFrame({"image_path": ["0.png"], "report": [["Normal.", "Clear."]], "other": [[1, 2]]})
    table.to_parquet(tmp_path / "own.parquet")
    for read in (
        lambda: read_pairs(tmp_path, DataSettings()),
        lambda: read_own(tmp_path, SourceOptions()),
    ):
        with pytest.raises(UserError, match=r"own\.parquet: the cells of column report are lists or records"):
            read()


def test_bytes_of_a_parquet_file_are_utf8_or_named(tmp_path):
    path = tmp_path / "bytes.parquet"
    pd.DataFrame({"report": ["Fluß.".encode(), b"Clear."], "n": [1, 2]}).to_parquet(path)
    assert read_table(path)["report"].tolist() == ["Fluß.", "Clear."]
    pd.DataFrame({"report": [b"Clear.", b"bytes \xff"]}).to_parquet(path)
    with pytest.raises(UserError, match=r"bytes\.parquet, row 2: column report holds bytes that are no UTF-8 text"):
        read_table(path)


def test_hash_of_what_is_no_parquet_table_is_that_of_its_bytes(tmp_path: Path) -> None:
    """Shards are known by a JSON file, and a csv table may be in an encoding that only the recipe knows."""
    for name, content in (("shards.json", b'{"a": [1,\n "b"]}'), ("pairs.csv", "a;b\n1;é\n".encode("cp1252"))):
        (tmp_path / name).write_bytes(content)
        assert table_sha256(tmp_path / name) == hashlib.sha256(content).hexdigest()
