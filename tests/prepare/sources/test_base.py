"""Files are found by pattern; drawn splits keep patients together; rows that are left out are remembered."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cmcgns.common.errors import UserError
from cmcgns.prepare.sources.base import SourceTable, existing_files, find
from cmcgns.prepare.sources.cells import draw_splits


def test_find_takes_the_first_pattern_that_matches(tmp_path):
    (tmp_path / "b.csv").touch()
    assert find(tmp_path, "a*.csv", "b*.csv") == tmp_path / "b.csv"
    with pytest.raises(UserError, match=r"none of x\.csv, y\.csv is there"):
        find(tmp_path, "x.csv", "y.csv")


def test_names_in_another_encoding_are_left_out_and_named(tmp_path):
    (tmp_path / "good.png").touch()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/r\xe9sum\xe9.png")).touch()
    table = SourceTable()
    assert existing_files(tmp_path, [""], table) == {"good.png"}
    (left,) = table.left_out
    json.dumps(left).encode()
    assert left == {"where": r"r\udce9sum\udce9.png", "reason": "its name is no UTF-8: rename it"}


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
