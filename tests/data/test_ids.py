"""Ids of patients and studies have one form wherever they come from; likely twins are found, not merged."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmcgns.data.manifest import read_manifest, write_manifest
from cmcgns.data.pairs.rows import read_pairs
from cmcgns.data.vocabulary import canonical_ids, twin_keys, twins_between
from cmcgns.prepare.sources.base import SourceOptions
from cmcgns.prepare.sources.table import read as read_own
from cmcgns.settings.config import DataSettings
from support.trees import write_image


@pytest.mark.parametrize(
    "values",
    [
        pd.Series([101, 102, 103]),
        pd.Series([101.0, 102.0, np.nan, 103.0]),
        pd.Series([101, 102, None, 103], dtype="Int64"),
        pd.Series([101.0, 102.5, 103.0]),
        pd.Series([101, "102", 103.0], dtype=object),
        pd.Series(["101", " 102 ", "103.0", "nan", "None", "", "<NA>"]),
        pd.Series(["101.00", "102", "103"], dtype="category"),
    ],
)
def test_one_id_is_one_text_in_whatever_type_the_column_is(values):
    found = canonical_ids(values)
    assert str(found.dtype) == "str"
    named = found[found != ""].tolist()
    assert (named[0], named[-1], len(named)) == ("101", "103", 3)


def test_the_name_of_a_dataset_stands_before_the_same_number():
    assert canonical_ids(pd.Series(["nih:101.0", "nih:101", "a:b:1.0"])).tolist() == ["nih:101", "nih:101", "a:b:1.0"]


@pytest.mark.parametrize("name", ["p101.0", "1.2.840.0", "101.5", "0.10", "v1.0:x", "00101", "P 7", "1e3", "10.0a"])
def test_other_ids_stay_as_they_are(name):
    assert canonical_ids(pd.Series([name])).tolist() == [name]


def test_big_numbers_are_not_written_with_an_exponent():
    assert canonical_ids(pd.Series([1e15, np.nan, 20_000_000_000_000_000.0])).tolist() == [
        "1000000000000000", "", "20000000000000000",
    ]  # fmt: skip


def test_twins_differ_in_leading_zeros_case_or_blanks_alone():
    same = pd.Series(["nih:p007", "NIH:p7", "nih: P 7", "nih:P0007"])
    assert twin_keys(same).nunique() == 1
    different = pd.Series(["p7", "p70", "q7", "p07a", "p7.5", "p", "p0", "p1-7", "p17"])
    assert twin_keys(different).nunique() == len(different)


def test_pairs_of_twins_are_named_once_and_equal_ids_are_none():
    ids, others = pd.Series(["p7", "p7", "", "x", "q01"]), pd.Series(["P7", "p7", "", "y", "q1", "Q1"])
    assert twins_between(ids, others).to_numpy().tolist() == [["p7", "P7"], ["q01", "q1"], ["q01", "Q1"]]
    assert twins_between(ids, pd.Series(["z"])).empty


@pytest.mark.parametrize(
    "patients", [[101.0, 102.0, np.nan], ["101.0", "102.0", ""], ["101", " 102", None], [101, 102, 103]]
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_every_reader_says_the_same_of_a_patient(tmp_path, patients, kind):
    table = pd.DataFrame(
        {"image_path": ["a.png", "b.png", "c.png"], "patient_id": patients, "study_id": ["1", "2.0", "3"]}
    )
    table = table.assign(report="Normal.", dataset="own", view="PA", split="train")
    for name in table["image_path"]:
        write_image(tmp_path / name)
    own = tmp_path / f"own.{kind}"
    table.to_csv(own, index=False) if kind == "csv" else table.to_parquet(own)
    pairs = read_pairs(own, DataSettings()).frame
    assert pairs["patient_id"][:2].tolist() == ["101", "102"]
    assert pairs["study_id"].tolist() == ["1", "2", "3"]
    prepared = read_own(own, SourceOptions()).frame
    assert prepared["patient_id"][:2].tolist() == ["own:101", "own:102"]
    manifest = read_manifest(write_manifest(table, tmp_path / "out" / "manifest.parquet"))
    assert manifest["patient_id"][:2].tolist() == ["101", "102"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-(2**53), 2**53), min_size=1, max_size=4), st.booleans(), st.sampled_from(["", "nih:"]))
def test_any_number_is_one_id_however_it_is_spelt(numbers, gap, name):
    """As whole numbers, as floats, as text of either, as pandas writes them with a gap, with decimal commas."""
    wanted = [f"{name}{number}" for number in numbers]
    spellings = [
        [f"{name}{number}" for number in numbers],
        [f" {name}{number}.0 " for number in numbers],
        [f"{name}{number},0" for number in numbers],
    ]
    columns = [pd.Series([*texts, None] if gap else texts, dtype="str") for texts in spellings]
    if not name:
        columns += [pd.Series(numbers), pd.Series([float(number) for number in numbers] + [np.nan] * gap)]
        columns += [pd.Series([*numbers, None], dtype=object), pd.Series([*numbers, None], dtype="Int64")]
    for column in columns:
        assert canonical_ids(column)[: len(numbers)].tolist() == wanted


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.text(max_size=8) | st.from_regex(r"[a-z]{0,2}:?0?[0-9]{1,3}[.,]?0{0,2}", fullmatch=True), max_size=5)
)
def test_the_form_of_an_id_is_final_and_thousands_are_no_decimals(texts):
    once = canonical_ids(pd.Series(texts, dtype="str"))
    assert canonical_ids(once).tolist() == once.tolist()
    assert canonical_ids(pd.Series(["1,000", "1,00", "1.000"])).tolist() == ["1,000", "1,00", "1"]
