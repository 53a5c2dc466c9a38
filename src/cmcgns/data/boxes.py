"""Boxes as manifests and tables state them, checked before anything is made of them."""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmcgns.common.errors import UserError, shortened
from cmcgns.data.images.place import place_boxes

BOX_FIELDS = ("x", "y", "width", "height")
NOT_LISTED = "boxes are not a JSON list of {label, x, y, width, height}"


def boxes_text(boxes: Iterable[dict[str, object]]) -> str:
    """Boxes as the manifest keeps them."""
    return json.dumps(list(boxes), ensure_ascii=False)


def listed_boxes(text: str) -> list[dict[str, Any]] | None:
    """The boxes of a cell, whatever they state; None: it is no list of boxes in JSON."""
    try:
        boxes = json.loads(text)
    except (ValueError, RecursionError):
        return None
    listed = isinstance(boxes, list) and all(isinstance(box, dict) for box in boxes)
    return boxes if listed else None


def as_number(side: object) -> float:
    """A side of a box in pixels; NaN if it is no number, or a whole one beyond what a float holds."""
    if isinstance(side, bool) or not isinstance(side, int | float):
        return math.nan
    try:
        return float(side)
    except OverflowError:
        return math.nan


def box_fault(text: str) -> str:
    """What is wrong with a cell of boxes in JSON, with outlines that are to be scaled too; empty if nothing is."""
    boxes = listed_boxes(text)
    if fault := _fault(boxes):
        return fault
    for number, box in enumerate(boxes or [], start=1):
        if not has_usable_points(box):
            return f"points of box {number} are not a list of pairs of finite numbers ({shortened(box['points'])})"
    return ""


def _fault(boxes: list[dict[str, Any]] | None) -> str:
    if boxes is None:
        return NOT_LISTED
    for number, box in enumerate(boxes, start=1):
        stated = [box.get(side) for side in BOX_FIELDS]
        sides = list(map(as_number, stated))
        if not all(map(math.isfinite, sides)) or min(sides[2:]) <= 0:
            return f"box {number} is not finite or without area ({', '.join(BOX_FIELDS)}: {shortened(stated)})"
    return ""


def has_usable_points(box: Mapping[str, Any]) -> bool:
    """Whether a box states no points, or a list of pairs of finite numbers."""
    points = box.get("points")
    return points is None or (
        isinstance(points, list)
        and all(
            isinstance(pair, list) and len(pair) == 2 and all(math.isfinite(as_number(each)) for each in pair)
            for pair in points
        )
    )


def parse_boxes(text: str, where: str) -> list[dict[str, Any]]:
    """Boxes of a row: x, y, width, height in pixels, with an area, and whatever else is stated.

    Args:
        text: JSON; empty: none.
        where: the row, for the message.

    Raises:
        UserError: the cell is not a list of such boxes; names the row.
    """
    if not text:
        return []
    boxes = listed_boxes(text)
    if fault := _fault(boxes):
        raise UserError(f"{where}: {fault}; `cmcgns check` names all such rows")
    return boxes or []


def picture_size(width: object, height: object, where: str) -> tuple[int, int]:
    """Width and height of the picture that boxes are on.

    Raises:
        UserError: one of them is no whole number above 0; names the row.
    """
    sides = []
    for side in (width, height):
        try:
            number = float(str(side))  # a column with a gap holds 512.0
        except ValueError:
            number = math.nan
        sides.append(int(number) if number.is_integer() else 0)
    if min(sides) < 1:
        stated = f"{shortened(width)!r} and {shortened(height)!r}"
        raise UserError(f"{where}: boxes need the picture's size in pixels (columns width, height), not {stated}")
    return sides[0], sides[1]


def check_inside(boxes: Iterable[Mapping[str, Any]], width: int, height: int, where: str) -> None:
    """Raise if a box lies outside of its picture as a whole: then it is in pixels of another size.

    Args:
        boxes: of :func:`parse_boxes`.
        width: of the picture, pixels.
        height: of the picture.
        where: the row, for the message.
    """
    for number, box in enumerate(boxes, start=1):
        right, bottom = box["x"] + box["width"], box["y"] + box["height"]
        if box["x"] >= width or box["y"] >= height or right <= 0 or bottom <= 0:
            raise UserError(
                f"{where}: box {number} lies outside of the picture of {width}×{height} pixels: boxes are in pixels "
                "of the stored picture (columns width, height)"
            )


def placed_boxes(
    text: str, width: object, height: object, where: str, size: int, crop: int | None = None, *, inside: bool = False
) -> tuple[list[dict[str, Any]], NDArray[np.float64]]:
    """Boxes of a row, and where the square of its picture shows them.

    Args:
        text: as for :func:`parse_boxes`.
        width: of the stored picture; asked for only where there is a box.
        height: of the stored picture.
        where: the row, for messages.
        size: side of the square.
        crop: side of a crop from its middle, which then counts instead.
        inside: whether to refuse a box that lies outside of its picture as a whole.

    Returns:
        k boxes as they are stated, and (k, 4) x0, y0, x1, y1 as :func:`place_boxes` gives them.

    Raises:
        UserError: malformed boxes, or a picture of unknown size; names the row.
    """
    stated = parse_boxes(text, where)
    picture = picture_size(width, height, where) if stated else (1, 1)
    if inside:
        check_inside(stated, *picture, where)
    return stated, place_boxes(stated, *picture, size, crop)
