"""Checks of the boxes that manifests keep as JSON."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from cmcgns.check.box_table import SIDES, SLACK, outside, sticks_out
from cmcgns.check.rule import Finding, Loaded, each, positions, rule


@rule("malformed-boxes", "boxes are not a JSON list of boxes")
@each
def malformed_boxes(loaded: Loaded) -> Iterator[Finding]:
    """Cells that cannot be read at all."""
    _, malformed = loaded.boxes
    if malformed:
        yield loaded.finding("error", "boxes are not a JSON list of {label, x, y, width, height}", malformed)


@rule("impossible-box", "a box has a missing, NaN or infinite number, or no area")
@each
def impossible_box(loaded: Loaded) -> Iterator[Finding]:
    """Boxes that no image can hold."""
    boxes, _ = loaded.boxes
    sides = boxes[list(SIDES)].to_numpy()
    unknown = pd.Series(~np.isfinite(sides).all(axis=1))
    flat = ~unknown & pd.Series((sides[:, 2:] <= 0).any(axis=1))
    if rows := _rows(boxes, unknown):
        yield loaded.finding("error", "a box lacks x, y, width or height as a finite number", rows)
    if rows := _rows(boxes, flat):
        yield loaded.finding("error", "a box has no area: its width or height is zero or negative", rows)


@rule("box-outside", "a box lies outside its image")
@each
def box_outside(loaded: Loaded) -> Iterator[Finding]:
    """Whole boxes outside; most often the boxes are in pixels of another size."""
    boxes, _ = loaded.boxes
    if rows := _rows(boxes, outside(boxes)):
        message = "a box lies outside the image; boxes are in pixels of the stored image (columns width, height)"
        yield loaded.finding("error", message, rows)


@rule("box-sticks-out", "a box reaches beyond the border of its image")
@each
def box_sticks_out(loaded: Loaded) -> Iterator[Finding]:
    """By more than a pixel; `fix` clips these boxes."""
    boxes, _ = loaded.boxes
    if rows := _rows(boxes, sticks_out(boxes)):
        yield loaded.finding("warning", f"a box reaches more than {SLACK:g} pixel beyond the image", rows)


def _rows(boxes: pd.DataFrame, wrong: "pd.Series[bool]") -> list[int]:
    return sorted(set(boxes["row"].to_numpy()[positions(wrong)].tolist()))
