"""Boxes as manifests and tables state them, checked before anything is made of them."""

import json
import math
from typing import Any

from cmcgns.common.errors import UserError

_SHOWN = 200  # letters of a cell that a message quotes


def box_fault(text: str) -> str:
    """What is wrong with a cell of boxes in JSON; empty if nothing is."""
    try:
        boxes = json.loads(text)
    except (ValueError, RecursionError):
        return "boxes are not JSON"
    if not isinstance(boxes, list) or not all(isinstance(box, dict) for box in boxes):
        return "boxes are not a list of {label, x, y, width, height}"
    for number, box in enumerate(boxes, start=1):
        sides = [box.get(side) for side in ("x", "y", "width", "height")]
        if not all(isinstance(side, int | float) and not isinstance(side, bool) for side in sides):
            return f"box {number} has no numbers x, y, width, height"
        if not all(map(_is_finite, sides)) or min(sides[2:]) <= 0:
            return f"box {number} is not finite or without area (x, y, width, height: {str(sides)[:_SHOWN]})"
    return ""


def _is_finite(side: float) -> bool:
    try:
        return math.isfinite(side)
    except OverflowError:  # a whole number beyond what a float holds
        return False


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
    if fault := box_fault(text):
        raise UserError(f"{where}: {fault}; `cmcgns check` names all such rows")
    boxes: list[dict[str, Any]] = json.loads(text)
    return boxes


def picture_size(width: object, height: object, where: str) -> tuple[int, int]:
    """Width and height of the picture that boxes are on.

    Raises:
        UserError: one of them is no whole number above 0; names the row.
    """
    try:
        size = int(str(width)), int(str(height))
    except ValueError:
        size = 0, 0
    if min(size) < 1:
        stated = f"{str(width)[:_SHOWN]!r} and {str(height)[:_SHOWN]!r}"
        raise UserError(f"{where}: boxes need the picture's size in pixels (columns width, height), not {stated}")
    return size
