"""Boxes of a user's own table on the page of a run."""

import pandas as pd
import pytest

from cmcgns.common.errors import UserError
from cmcgns.reporting.run_page.studies import _read_boxes
from cmcgns.settings.config import DataSettings

BOX = '[{"label": "Mass", "x": 10, "y": 10, "width": 20, "height": 30}]'


@pytest.mark.parametrize(("boxes", "width", "fault"), [
    (BOX, "wide", "boxes need the picture's size"), (BOX, None, "boxes need the picture's size"),
    (BOX, float("nan"), "boxes need the picture's size"), ("[{}]", 64, "not finite"), ("{", 64, "not a JSON list"),
])  # fmt: skip
def test_odd_cells_are_named(boxes: str, width: object, fault: str) -> None:
    frame = pd.DataFrame({"boxes": [boxes], "width": [width], "height": [64], "image_path": ["a.png"]}, dtype=object)
    with pytest.raises(UserError, match=rf"^a\.png: .*{fault}"):
        _read_boxes(frame, DataSettings())


def test_rows_without_boxes_need_no_size() -> None:
    frame = pd.DataFrame({"boxes": ["", "[]", BOX], "width": ["x", None, 64], "height": [None, "y", 64.0],
                          "image_path": ["a", "b", "c"]}, dtype=object)  # fmt: skip
    assert [len(each) for each in _read_boxes(frame, DataSettings())] == [0, 0, 1]
