"""The boxes that manifests keep as JSON, as one table of numbers."""

import json

import numpy as np
import pandas as pd

SLACK = 1.0  # pixels: boxes are scaled with the image and rounded


SIDES = ("x", "y", "width", "height")


_CHUNK = 20_000  # rows parsed at once: memory stays flat


def parse_boxes(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[int]]:
    """All boxes of a manifest as numbers.

    Returns:
        One row per box: `row` (position in the manifest), `x`, `y`, `width`, `height` (NaN where there is no number),
        `image_width`, `image_height` (NaN where the manifest does not say); and the rows that hold no list of boxes.
    """
    texts = frame["boxes"]
    stated = np.flatnonzero(((texts != "") & (texts != "[]")).to_numpy(dtype=bool))
    rows: list[int] = []
    numbers: list[tuple[float, ...]] = []
    malformed: list[int] = []
    for start in range(0, len(stated), _CHUNK):
        chunk = stated[start : start + _CHUNK]
        for row, boxes in zip(chunk.tolist(), _parse(texts.iloc[chunk].tolist()), strict=True):
            if boxes is None:
                malformed.append(row)
                continue
            rows += [row] * len(boxes)
            numbers += boxes
    table = pd.DataFrame(np.array(numbers, dtype=np.float64).reshape(-1, 4), columns=list(SIDES))
    table.insert(0, "row", np.array(rows, dtype=np.int64))
    for name in ("width", "height"):
        sizes = frame[name].to_numpy(dtype=np.float64, na_value=np.nan)
        table[f"image_{name}"] = sizes[table["row"].to_numpy()]
    return table, malformed


def _parse(texts: list[str]) -> list[list[tuple[float, ...]] | None]:
    try:
        lists = json.loads(f"[{','.join(texts)}]")  # one call for good rows
        whole = len(lists) == len(texts)
    except (ValueError, RecursionError):
        whole = False
    if not whole:
        lists = [_parse_one(text) for text in texts]
    return [_numbers(boxes) for boxes in lists]


def _parse_one(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _numbers(boxes: object) -> list[tuple[float, ...]] | None:
    if not isinstance(boxes, list) or not all(isinstance(box, dict) for box in boxes):
        return None
    return [tuple(_number(box.get(side)) for side in SIDES) for box in boxes]


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return np.nan
    try:
        return float(value)
    except OverflowError:
        return np.nan


def sticks_out(boxes: pd.DataFrame) -> "pd.Series[bool]":
    """Boxes that are partly outside by more than the slack, so that clipping mends them."""
    right = boxes["x"] + boxes["width"] > boxes["image_width"] + SLACK
    low = boxes["y"] + boxes["height"] > boxes["image_height"] + SLACK
    left = (boxes["x"] < -SLACK) | (boxes["y"] < -SLACK)
    return _possible(boxes) & (right | low | left) & ~outside(boxes)


def outside(boxes: pd.DataFrame) -> "pd.Series[bool]":
    """Boxes that share no pixel with the image."""
    beyond = (boxes["x"] >= boxes["image_width"]) | (boxes["y"] >= boxes["image_height"])
    before = (boxes["x"] + boxes["width"] <= 0) | (boxes["y"] + boxes["height"] <= 0)
    return _possible(boxes) & (beyond | before)


def _possible(boxes: pd.DataFrame) -> "pd.Series[bool]":
    finite = boxes[list(SIDES)].abs().max(axis=1, skipna=False) < np.inf
    return finite & (boxes["width"] > 0) & (boxes["height"] > 0)
