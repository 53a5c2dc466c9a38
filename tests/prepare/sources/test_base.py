"""Tables of any spelling are read as text; drawn splits keep patients together."""

import gzip

import numpy as np
import pandas as pd
import pytest

from cmcgns.common.errors import UserError
from cmcgns.data.tables import read_table
from cmcgns.prepare.sources.base import SourceTable, draw_splits, find


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
        (b"", "cannot be read as csv"),
        (b"id,id\n1,2\n", "column 'id' stands there twice"),
        (b"name\n1\n", "missing column id .found: name"),
        (b"id,b\n1,2\n3,4,5\n", "cannot be read as csv.*line 3"),
        (b"id\n\xff\xfe\x00\n", "cannot be read as csv"),
    ],
)
def test_faults_of_a_table_are_named(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(UserError, match=rf"t\.csv.*{message}"):
        read_table(tmp_path / "t.csv", ["id"])
    with pytest.raises(UserError, match=r"gone\.csv: no such file"):
        read_table(tmp_path / "gone.csv")


def test_find_takes_the_first_pattern_that_matches(tmp_path):
    (tmp_path / "b.csv").touch()
    assert find(tmp_path, "a*.csv", "b*.csv") == tmp_path / "b.csv"
    with pytest.raises(UserError, match=r"none of x\.csv, y\.csv is there"):
        find(tmp_path, "x.csv", "y.csv")


def test_patients_stay_together_and_shares_are_kept_within_strata():
    generator = np.random.default_rng(0)
    patients = pd.Series([f"p{number}" for number in generator.integers(0, 1000, 3000)])
    positive = patients.str[1:].astype(int) % 4 == 0
    shares = {"train": 0.7, "val": 0.1, "test": 0.2}
    splits = draw_splits(patients, 1, shares, positive)
    assert splits.groupby(patients).nunique().max() == 1
    for stratum in (True, False):
        of_patients = splits[positive == stratum].groupby(patients).first().value_counts(normalize=True)
        for name, share in shares.items():
            assert of_patients[name] == pytest.approx(share, abs=0.01)


def test_a_split_depends_on_names_and_seed_but_not_on_the_order_of_rows():
    patients = pd.Series([f"p{number}" for number in range(200)])
    shares = {"train": 0.8, "val": 0.2}
    splits = dict(zip(patients, draw_splits(patients, 3, shares), strict=True))
    turned = patients[::-1].reset_index(drop=True)
    assert dict(zip(turned, draw_splits(turned, 3, shares), strict=True)) == splits
    assert dict(zip(patients, draw_splits(patients, 4, shares), strict=True)) != splits


def test_rows_that_are_left_out_are_remembered():
    table = SourceTable(pd.DataFrame({"source": ["a", "b", "c"]}))
    table.leave_out(pd.Series([False, True, False]), "no image", table.frame["source"])
    assert table.frame["source"].tolist() == ["a", "c"]
    assert table.left_out == [{"where": "b", "reason": "no image"}]
