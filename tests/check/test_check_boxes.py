from pathlib import Path

import numpy as np
import pytest

from cmcgns.check.boxes import box_table
from cmcgns.data.boxes import boxes_text
from cmcgns.data.manifest import conform
from support.check import box, changed, found, rows, write

GOOD_BOXES = [box(0, 0, 100, 120), box(-0.5, 10, 20, 20), box(90, 100, 11, 21) | {"points": [[90, 100], [101, 121]]}]
GOOD = [*(boxes_text([good]) for good in GOOD_BOXES), "[]", ""]


@pytest.mark.parametrize(
    ("rule", "bad"),
    [
        ("malformed-boxes", '[{"x": 1'),
        ("malformed-boxes", '{"x": 1}'),
        ("malformed-boxes", "[[1, 2, 3, 4]]"),
        ("malformed-boxes", '"none"'),
        ("malformed-boxes", "[],[]"),
        ("impossible-box", boxes_text([box(float("nan"), 1, 2, 3)])),
        ("impossible-box", boxes_text([box(float("inf"), 1, 2, 3)])),
        ("impossible-box", '[{"x": 1, "y": 2, "width": 3}]'),
        ("impossible-box", '[{"x": "1", "y": 2, "width": 3, "height": 4}]'),
        ("impossible-box", '[{"x": 1, "y": 2, "width": null, "height": 4}]'),
        ("impossible-box", '[{"x": 1, "y": 2, "width": true, "height": 4}]'),
        ("impossible-box", f'[{{"x": 1{"0" * 400}, "y": 2, "width": 3, "height": 4}}]'),
        ("impossible-box", boxes_text([box(1, 1, 0, 5)])),
        ("impossible-box", boxes_text([box(10, 10, -5, 5)])),
        ("odd-points", boxes_text([box(1, 1, 5, 5) | {"points": {}}])),
        ("odd-points", boxes_text([box(1, 1, 5, 5) | {"points": [1, 1, 6, 6]}])),
        ("box-outside", boxes_text([box(100, 1, 5, 5)])),
        ("box-outside", boxes_text([box(1, 500, 5, 5)])),
        ("box-outside", boxes_text([box(-10, 1, 9, 5)])),
        ("box-sticks-out", boxes_text([box(90, 10, 20, 20)])),
        ("box-sticks-out", boxes_text([box(-5, 10, 20, 20)])),
        ("box-sticks-out", boxes_text([box(5, 110, 20, 12)])),
    ],
)
def test_each_bad_box_is_found_by_one_rule_and_good_rows_are_not(tmp_path: Path, rule: str, bad: str) -> None:
    frame = changed(rows(6), "boxes", dict(enumerate([*GOOD[:2], bad, *GOOD[2:]])))
    folder = write(tmp_path, frame)
    for name in ("malformed-boxes", "impossible-box", "odd-points", "box-outside", "box-sticks-out"):
        findings = found(folder, name)
        assert [finding.rows for finding in findings] == ([(2,)] if name == rule else [])
        severity = "warning" if rule in ("odd-points", "box-sticks-out") else "error"
        assert all(finding.severity == severity for finding in findings)


def test_boxes_of_images_of_unknown_size_are_not_judged_by_it(tmp_path: Path) -> None:
    frame = changed(rows(2), "boxes", {0: boxes_text([box(500, 500, 20, 20)])}).drop(columns=["width", "height"])
    assert found(write(tmp_path, frame), "box-outside") == []


def test_the_table_has_all_boxes_in_order() -> None:
    cells = {0: "", 1: boxes_text([box(1, 2, 3, 4), box(5, 6, 7, 8)]), 2: "broken", 3: boxes_text([box(9, 8, 7, 6)])}
    frame = conform(changed(rows(4), "boxes", cells), "test")
    table, malformed = box_table(frame)
    assert malformed == [2]
    assert table["row"].tolist() == [1, 1, 3]
    np.testing.assert_array_equal(table[["x", "y", "width", "height"]], [[1, 2, 3, 4], [5, 6, 7, 8], [9, 8, 7, 6]])
    np.testing.assert_array_equal(table[["image_width", "image_height"]], [[100, 120]] * 3)
