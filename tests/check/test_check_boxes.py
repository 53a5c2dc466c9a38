import json
from pathlib import Path

import numpy as np
import pytest

from cmcgns.check.box_table import parse_boxes
from cmcgns.data.manifest import conform
from support.check import changed, found, rows, write


def box(x: float, y: float, width: float, height: float) -> str:
    return json.dumps([{"label": "opacity", "x": x, "y": y, "width": width, "height": height}])


GOOD = [box(0, 0, 100, 120), box(-0.5, 10, 20, 20), box(90, 100, 11, 21), "[]", ""]


@pytest.mark.parametrize(
    ("rule", "bad"),
    [
        ("malformed-boxes", '[{"x": 1'),
        ("malformed-boxes", '{"x": 1}'),
        ("malformed-boxes", "[[1, 2, 3, 4]]"),
        ("malformed-boxes", "null"),
        ("malformed-boxes", "[],[]"),
        ("impossible-box", box(float("nan"), 1, 2, 3)),
        ("impossible-box", box(float("inf"), 1, 2, 3)),
        ("impossible-box", '[{"x": 1, "y": 2, "width": 3}]'),
        ("impossible-box", '[{"x": "1", "y": 2, "width": 3, "height": 4}]'),
        ("impossible-box", '[{"x": 1, "y": 2, "width": null, "height": 4}]'),
        ("impossible-box", '[{"x": 1, "y": 2, "width": true, "height": 4}]'),
        ("impossible-box", f'[{{"x": 1{"0" * 400}, "y": 2, "width": 3, "height": 4}}]'),
        ("impossible-box", box(1, 1, 0, 5)),
        ("impossible-box", box(10, 10, -5, 5)),
        ("box-outside", box(100, 1, 5, 5)),
        ("box-outside", box(1, 500, 5, 5)),
        ("box-outside", box(-10, 1, 9, 5)),
        ("box-sticks-out", box(90, 10, 20, 20)),
        ("box-sticks-out", box(-5, 10, 20, 20)),
        ("box-sticks-out", box(5, 110, 20, 12)),
    ],
)
def test_each_bad_box_is_found_by_one_rule_and_good_rows_are_not(tmp_path: Path, rule: str, bad: str) -> None:
    frame = changed(rows(6), "boxes", dict(enumerate([*GOOD[:2], bad, *GOOD[2:]])))
    folder = write(tmp_path, frame)
    for name in ("malformed-boxes", "impossible-box", "box-outside", "box-sticks-out"):
        findings = found(folder, name)
        assert [finding.rows for finding in findings] == ([(2,)] if name == rule else [])
        assert all(finding.severity == ("warning" if rule == "box-sticks-out" else "error") for finding in findings)


def test_boxes_of_images_of_unknown_size_are_not_judged_by_it(tmp_path: Path) -> None:
    frame = changed(rows(2), "boxes", {0: box(500, 500, 20, 20)}).drop(columns=["width", "height"])
    assert found(write(tmp_path, frame), "box-outside") == []


def test_the_table_has_all_boxes_in_order() -> None:
    two = json.dumps(json.loads(box(1, 2, 3, 4)) + json.loads(box(5, 6, 7, 8)))
    frame = conform(changed(rows(4), "boxes", {0: "", 1: two, 2: "broken", 3: box(9, 8, 7, 6)}), "test")
    table, malformed = parse_boxes(frame)
    assert malformed == [2]
    assert table["row"].tolist() == [1, 1, 3]
    np.testing.assert_array_equal(table[["x", "y", "width", "height"]], [[1, 2, 3, 4], [5, 6, 7, 8], [9, 8, 7, 6]])
    np.testing.assert_array_equal(table[["image_width", "image_height"]], [[100, 120]] * 3)
