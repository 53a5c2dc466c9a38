"""Cells of boxes: read, or refused with the row's name."""

import json

import pytest

from cmcgns.common.errors import UserError
from cmcgns.data.boxes import box_fault, check_inside, parse_boxes, picture_size

GOOD = {"label": "a", "x": 1, "y": 2.5, "width": 3, "height": 4}


@pytest.mark.parametrize(("text", "fault"), [
    ("{", "not a JSON list"), ("[" * 100_000, "not a JSON list"),
    ('{"x": 1}', "not a JSON list"), ("[1]", "not a JSON list"),
    ('[{"label": "a"}]', "box 1 is not finite"),
    (json.dumps([GOOD, GOOD | {"x": "1"}]), "box 2 is not finite"),
    (json.dumps([GOOD | {"x": True}]), "box 1 is not finite"),
    (json.dumps([GOOD | {"width": 0}]), "without area"), (json.dumps([GOOD | {"height": -1}]), "without area"),
    ('[{"x": NaN, "y": 1, "width": 1, "height": 1}]', "not finite"),
    ('[{"x": 1' + "0" * 400 + ', "y": 1, "width": 1, "height": 1}]', "not finite"),
])  # fmt: skip
def test_malformed_boxes_name_the_row(text: str, fault: str) -> None:
    with pytest.raises(UserError, match=rf"^a\.dcm: .*{fault}") as caught:
        parse_boxes(text, "a.dcm")
    assert len(str(caught.value)) < 400


def test_good_boxes_keep_all_that_they_state() -> None:
    assert parse_boxes("", "a") == parse_boxes("[]", "a") == []
    for good in (GOOD, GOOD | {"points": None}, GOOD | {"points": []}, GOOD | {"points": [[1, 2.5], [4, 6.5]]}):
        assert parse_boxes(json.dumps([good]), "a") == [good]
        assert not box_fault(json.dumps([good]))


@pytest.mark.parametrize(
    "points", [{}, "ab", [1, 2, 3, 4], [[1, 2], [3]], [["1", 2]], [[1, None]], [[1, float("nan")]]]
)
def test_points_that_cannot_be_scaled_are_a_fault_where_they_are(points: object) -> None:
    text = json.dumps([GOOD, GOOD | {"points": points}])
    assert box_fault(text).startswith("points of box 2 are not a list of pairs of finite numbers")
    assert len(parse_boxes(text, "a")) == 2  # nothing that judges asks for them


@pytest.mark.parametrize("size", [("abc", 3), (3, "<NA>"), (0, 3), (-1, 3), (2.5, 3), (None, 3), ("9" * 5000, 3)])
def test_a_picture_without_a_size_is_named(size: tuple[object, object]) -> None:
    with pytest.raises(UserError, match=r"^a\.png: boxes need the picture's size") as caught:
        picture_size(*size, "a.png")
    assert len(str(caught.value)) < 600
    assert picture_size("12", 7.0, "a") == (12, 7)


def test_a_box_outside_of_its_picture_is_named() -> None:
    check_inside([GOOD, GOOD | {"x": -2.9}], 10, 10, "a")
    for wrong in (GOOD | {"x": 10}, GOOD | {"x": -3}, GOOD | {"y": -4}, GOOD | {"y": 1e300}):
        with pytest.raises(UserError, match=r"^a: box 2 lies outside of the picture of 10×10 pixels"):
            check_inside([GOOD, wrong], 10, 10, "a")
