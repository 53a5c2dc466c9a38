import numpy as np
import pandas as pd
import pytest

from cmcgns.common.errors import UserError
from cmcgns.evaluation.subsets import subgroups


def masks(columns: object, groups: object) -> dict[str, np.ndarray]:
    return dict(subgroups(columns, groups).found)  # type: ignore[arg-type]


def test_sex_age_and_view_in_order() -> None:
    frame = pd.DataFrame({
        "sex": np.tile(["F", "M"], 60),
        "age": np.repeat([0.5, 17.9, 18, 39, 40, 80], 20),
        "view": np.repeat(["PA", "AP", "PA"], 40),
    })  # fmt: skip
    found = masks(frame, np.arange(120) // 2)
    assert list(found) == [
        "sex=F", "sex=M", "age=0-17", "age=18-39", "age=40-59", "age=80+", "view=AP", "view=PA",
    ]  # fmt: skip
    np.testing.assert_array_equal(found["sex=F"], frame["sex"] == "F")
    np.testing.assert_array_equal(found["age=0-17"], frame["age"] < 18)
    np.testing.assert_array_equal(found["age=18-39"], (frame["age"] >= 18) & (frame["age"] < 40))
    np.testing.assert_array_equal(found["view=AP"], frame["view"] == "AP")


@pytest.mark.parametrize(
    ("age", "band"),
    [(0, "0-17"), (17.99, "0-17"), (18, "18-39"), (39, "18-39"), (40, "40-59"), (59.5, "40-59"), (60, "60-79"),
     (79, "60-79"), (80, "80+"), (104, "80+"), (None, "unknown"), (np.nan, "unknown"), ("", "unknown"),
     ("57", "40-59"), ("<NA>", "unknown"), (pd.NA, "unknown")],
)  # fmt: skip
def test_band_of_an_age(age: object, band: str) -> None:
    other = 30 if band == "0-17" else 5
    found = masks({"age": [age] * 20 + [other] * 20}, np.arange(40))
    np.testing.assert_array_equal(found[f"age={band}"], np.arange(40) < 20)


def test_every_row_is_in_one_group_of_a_column_or_named_as_too_small() -> None:
    sex = ["F"] * 30 + ["M"] * 19 + [""] * 1
    found = subgroups({"sex": sex, "view": ["PA"] * 25 + ["AP"] * 25}, np.r_[np.arange(25), np.full(25, 7)])
    assert [name for name, _ in found.found] == ["sex=F", "view=PA"]
    assert found.too_small == [
        "sex=M (19 rows of 1 patient)", "sex=unknown (1 row of 1 patient)", "view=AP (25 rows of 1 patient)",
    ]  # fmt: skip


def test_missing_values_are_a_group_of_their_own() -> None:
    found = masks({"sex": ["F"] * 20 + [None] * 10 + [np.nan] * 10}, np.arange(40))
    assert list(found) == ["sex=F", "sex=unknown"]
    assert found["sex=unknown"].sum() == 20


def test_spellings_of_one_sex_and_one_view_are_one_group() -> None:
    columns = {"sex": ["F", "female", "m", "M"] * 10, "view": ["LL", "LAT", "PA", "pa"] * 10}
    assert list(masks(columns, np.arange(40))) == ["sex=F", "sex=M", "view=LATERAL", "view=PA"]


def test_what_does_not_divide_the_rows_makes_no_group() -> None:
    found = subgroups({"sex": ["F"] * 40, "age": [np.nan] * 40, "other": list(range(40))}, np.arange(40))
    assert found == ([], [])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"sex": ["F"]}, "column sex has 1 values for 2 rows"),
        ({"age": ["old", "5"]}, "column age: .*old"),
        ({"age": [5, -1]}, "column age: -1 in row 1 is no age"),
    ],
)
def test_bad_columns_are_refused(columns: dict[str, list[object]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        subgroups(columns, ["p", "q"])
