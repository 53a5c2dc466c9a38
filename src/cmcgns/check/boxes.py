"""The boxes that manifests keep as JSON: as one table of numbers, rules about them, clipping."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from cmcgns.check.rule import Finding, Loaded, Severity, positions, rule
from cmcgns.data.boxes import BOX_FIELDS, NOT_LISTED, as_number, boxes_text, has_usable_points, listed_boxes

SLACK = 1.0  # pixels: boxes are scaled with the image and rounded


def box_table(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[int]]:
    """All boxes of a manifest as numbers.

    Returns:
        One row per box: `row` (position in the manifest), `x`, `y`, `width`, `height` (NaN where there is no number),
        `pointed` (whether its points, if it has any, are pairs of finite numbers), `image_width`, `image_height` (NaN
        where the manifest does not say); and the rows that hold no list of boxes.
    """
    rows: list[int] = []
    numbers: list[tuple[float, ...]] = []
    pointed: list[bool] = []
    malformed: list[int] = []
    texts = frame["boxes"].tolist()
    for row in np.flatnonzero(~frame["boxes"].isin(["", "[]"])).tolist():
        boxes = listed_boxes(texts[row])
        if boxes is None:
            malformed.append(row)
            continue
        rows += [row] * len(boxes)
        numbers += [tuple(as_number(box.get(side)) for side in BOX_FIELDS) for box in boxes]
        pointed += map(has_usable_points, boxes)
    table = pd.DataFrame(np.array(numbers, dtype=np.float64).reshape(-1, 4), columns=list(BOX_FIELDS))
    table.insert(0, "row", np.array(rows, dtype=np.int64))
    table["pointed"] = np.array(pointed, dtype=bool)
    for name in ("width", "height"):
        table[f"image_{name}"] = frame[name].to_numpy(dtype=np.float64, na_value=np.nan)[rows]
    return table, malformed


@rule("malformed-boxes", "boxes are not a JSON list of boxes")
def malformed_boxes(loaded: Loaded) -> Iterator[Finding]:
    """Cells that cannot be read at all."""
    yield loaded.finding("error", NOT_LISTED, loaded.boxes[1])


@rule("impossible-box", "a box has a missing, NaN or infinite number, or no area")
def impossible_box(loaded: Loaded) -> Iterator[Finding]:
    """Boxes that no image can hold."""
    finite = _finite(loaded.boxes[0])
    yield _finding(loaded, "error", "a box lacks x, y, width or height as a finite number", ~finite)
    flat = finite & (loaded.boxes[0][["width", "height"]] <= 0).any(axis=1)
    yield _finding(loaded, "error", "a box has no area: its width or height is zero or negative", flat)


@rule("odd-points", "the points of a box are not pairs of finite numbers")
def odd_points(loaded: Loaded) -> Iterator[Finding]:
    """Outlines that cannot be drawn; boxes are used without them."""
    yield _finding(
        loaded, "warning", "the points of a box are not pairs of finite numbers", ~loaded.boxes[0]["pointed"]
    )


@rule("box-outside", "a box lies outside its image")
def box_outside(loaded: Loaded) -> Iterator[Finding]:
    """Whole boxes outside; most often the boxes are in pixels of another size."""
    message = "a box lies outside the image; boxes are in pixels of the stored image (columns width, height)"
    yield _finding(loaded, "error", message, _outside(loaded.boxes[0]))


@rule("box-sticks-out", "a box reaches beyond the border of its image")
def box_sticks_out(loaded: Loaded) -> Iterator[Finding]:
    """By more than a pixel; `fix` clips these boxes."""
    message = f"a box reaches more than {SLACK:g} pixel beyond the image"
    yield _finding(loaded, "warning", message, _sticks_out(loaded.boxes[0]))


def _finding(loaded: Loaded, severity: Severity, message: str, wrong: "pd.Series[bool]") -> Finding:
    """A finding about the rows of the boxes that are wrong."""
    return loaded.finding(severity, message, loaded.boxes[0]["row"][wrong].unique())


def _finite(boxes: pd.DataFrame) -> "pd.Series[bool]":
    return boxes[list(BOX_FIELDS)].abs().max(axis=1, skipna=False) < np.inf


def _possible(boxes: pd.DataFrame) -> "pd.Series[bool]":
    return _finite(boxes) & (boxes["width"] > 0) & (boxes["height"] > 0)


def _outside(boxes: pd.DataFrame) -> "pd.Series[bool]":
    """Boxes that share no pixel with the image."""
    beyond = (boxes["x"] >= boxes["image_width"]) | (boxes["y"] >= boxes["image_height"])
    before = (boxes["x"] + boxes["width"] <= 0) | (boxes["y"] + boxes["height"] <= 0)
    return _possible(boxes) & (beyond | before)


def _sticks_out(boxes: pd.DataFrame) -> "pd.Series[bool]":
    """Boxes that are partly outside by more than the slack, so that clipping mends them."""
    right = boxes["x"] + boxes["width"] > boxes["image_width"] + SLACK
    low = boxes["y"] + boxes["height"] > boxes["image_height"] + SLACK
    left = (boxes["x"] < -SLACK) | (boxes["y"] < -SLACK)
    return _possible(boxes) & (right | low | left) & ~_outside(boxes)


def clip_boxes(frame: pd.DataFrame) -> dict[int, int]:
    """Clip boxes that stick out of their image, in place; returns row -> number of boxes that were clipped."""
    boxes, _ = box_table(frame)
    texts = frame["boxes"].tolist()
    rows = boxes["row"].to_numpy()
    clipped: dict[int, int] = {}
    for position in positions(_sticks_out(boxes)):
        row = int(rows[position])
        listed = json.loads(texts[row])
        _clip(listed[position - int(np.searchsorted(rows, row))], boxes.iloc[position])  # rows are in order
        texts[row] = boxes_text(listed)
        clipped[row] = clipped.get(row, 0) + 1
    frame["boxes"] = texts
    return clipped


def _clip(box: dict[str, Any], measured: "pd.Series[float]") -> None:
    for start, length, end in (("x", "width", "image_width"), ("y", "height", "image_height")):
        low = max(0.0, measured[start])
        high = measured[start] + measured[length]
        bound = measured[end]
        box[start], box[length] = low, (high if np.isnan(bound) else min(high, bound)) - low
