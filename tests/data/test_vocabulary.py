"""Views, splits, sexes and ages, however a table or a DICOM tag spells them."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmcgns.data.vocabulary import (
    VIEWS,
    is_frontal,
    parse_age,
    parse_ages,
    parse_sex,
    parse_sexes,
    parse_splits,
    parse_view,
    parse_views,
)


@pytest.mark.parametrize(
    ("text", "view"),
    [
        ("AP", "AP"), ("pa", "PA"), ("AP Supine", "AP"), ("AP semi-erect", "AP"), ("Frontal", "FRONTAL"),
        ("L", "LATERAL"),
        ("LL", "LATERAL"), ("Lateral", "LATERAL"), ("", ""), ("?", ""), ("nan", ""), ("  ", ""), ("AP LLD", "OTHER"),
        ("RAO", "OTHER"), ("Other", "OTHER"), ("skyline", None),
    ],
)  # fmt: skip
def test_known_words(text: str, view: str | None) -> None:
    assert parse_view(text) == view
    assert view is None or view in VIEWS


def test_unknown_words_are_reported() -> None:
    views, unknown = parse_views(pd.Series(["AP", "skyline", "", "AP"], dtype="str"))
    assert list(views) == ["AP", "OTHER", "", "AP"]
    assert unknown == ["skyline"]


def test_only_what_is_known_to_be_another_view_is_not_frontal() -> None:
    cells = ["PA", "AP supine", "Frontal", "", "?", "skyline", "LAT", "LAO", "oblique", "AP AXIAL", "Left_Lateral"]
    assert list(is_frontal(pd.Series(cells, dtype="str"))) == [True] * 6 + [False] * 5


def test_splits() -> None:
    cells = pd.Series(["Train", "validate", " dev", "testing", "", "NaN", "fold 1"], dtype="str")
    assert parse_splits(cells).fillna("?").tolist() == ["train", "val", "val", "test", "", "", "?"]


def test_sexes() -> None:
    cells = pd.Series(["M", " male", "f", "FEMALE", "O", "", "unknown"], dtype="str")
    assert list(parse_sexes(cells)) == ["M", "M", "F", "F", "", "", ""]


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("58", 58), ("58.0", 58), ("058Y", 58), ("011M", 0), ("030m", 2), ("060W", 1), ("004D", 0), ("0", 0),
        ("120", 120), ("121", None), ("150Y", None), ("", None), ("old", None), ("-3", None), ("1e2", None),
    ],
)  # fmt: skip
def test_ages_are_whole_years(text: str, years: int | None) -> None:
    assert parse_age(text) == years
    found = parse_ages(pd.Series([text, "7"], dtype="str"))
    assert str(found.dtype) == "Int32"
    assert found.tolist() == [pd.NA if years is None else years, 7]


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=12) | st.from_regex(r" ?-?[0-9]{1,4}([.,/][0-9]{0,2}){0,2} ?[YMWDymwd]?", fullmatch=True))
def test_any_cell_is_a_value_of_the_vocabulary_or_none(cell):
    age = parse_age(cell)
    assert age is None or 0 <= age <= 120
    assert parse_view(cell) in {*VIEWS, None}
    assert parse_splits(pd.Series([cell], dtype="str")).isin(["train", "val", "test", "", None, np.nan]).all()
    assert parse_sex(cell) in ("F", "M", "")


@pytest.mark.parametrize(
    ("cell", "years"),
    [
        ("057Y", 57),
        ("58,0", 58),
        ("58.9", 58),
        ("011M", 0),
        ("30M", 2),
        ("2020/1/2", None),
        ("-3", None),
        ("1000", None),
    ],
)
def test_ages(cell, years):
    assert parse_age(cell) == years
