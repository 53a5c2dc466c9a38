"""Outlines of a normal chest: trunk, lungs, mediastinum and heart."""

import numpy as np

from cmcgns.data.phantom.anatomy import SIDES, Anatomy
from cmcgns.data.phantom.canvas import Lung
from cmcgns.data.phantom.raster import Array, bump, clamp, ramp


def _arch(rows: Array, centre: float, above: float, below: float) -> Array:
    """Half an ellipse on its side: 1 at ``centre``, 0 at ``above`` and ``below`` it."""
    reach = np.where(rows < centre, np.float32(above), np.float32(below))
    arch: Array = np.sqrt(np.maximum(1 - ((rows - np.float32(centre)) / reach) ** 2, 0))
    return arch


def draw_mediastinum(
    anatomy: Anatomy, across: Array, down: Array, rows: Array, heart_ratio: float
) -> tuple[Array, Array]:
    """The mediastinal silhouette with the heart, and the heart alone."""
    base = sum(anatomy.diaphragm) / 2
    width = heart_ratio * 2 * anatomy.lung_width
    left_heart = np.float32(0.66 * width) * _arch(rows, base - 0.055, 0.225, 0.16)
    right_heart = np.float32(0.34 * width) * _arch(rows, base - 0.12, 0.18, 0.2)
    knob = 0.035 * anatomy.knob * bump(rows, 0.315, 0.034)
    left_vessels = 0.052 + knob + 0.022 * bump(rows, 0.43, 0.055)
    right_vessels = 0.05 + 0.014 * bump(rows, 0.36, 0.11)
    neck = 0.03 * bump(rows, 0.08, 0.06)  # the lung apices part from the midline
    # A high-order mean is a maximum without corners: borders of real silhouettes flow into each other.
    left = ((left_vessels + neck) ** 7 + left_heart**7) ** np.float32(1 / 7)
    right = ((right_vessels + neck) ** 7 + right_heart**7) ** np.float32(1 / 7)
    silhouette = ramp(left - across, 0.016)
    silhouette *= ramp(across + right, 0.014)
    top = base - 0.235
    bottom = ramp(np.float32(base + 0.02) - down + np.float32(0.09) * across, 0.05)
    heart = bottom * silhouette
    heart *= ramp(rows - np.float32(top), 0.06)
    return silhouette, heart


def draw_body(anatomy: Anatomy, across: Array, down: Array, rows: Array, columns: Array) -> Array:
    """Soft tissue without lungs: trunk, neck and shoulders against a dark background."""
    lateral: Array = np.abs(columns)
    shoulder: Array = np.float32(0.33) * np.maximum(lateral - np.float32(0.13), 0)
    shoulder -= np.float32(0.6) * np.maximum(0.135 - lateral, 0)
    armpit: Array = clamp(np.float32(0.46) - rows)
    trunk: Array = np.float32(anatomy.lung_width + anatomy.wall) + np.float32(2.5) * armpit * armpit
    trunk += np.float32(0.02) * rows
    body = ramp(down - (shoulder - np.float32(0.015)), 0.03)
    body *= ramp(trunk - np.abs(across), 0.025)
    thickness = np.float32(0.70) + np.float32(0.12) * (rows - 0.6).clip(0, 0.3)
    thickness = thickness - np.float32(0.16) * (0.2 - rows).clip(0, 0.2) - np.float32(0.35) * lateral**2
    body *= thickness
    return body


def draw_lung(
    anatomy: Anatomy, side: str, across: Array, down: Array, rows: Array, columns: Array, silhouette: Array
) -> Lung:
    """The cage and air of one lung, on the half of the canvas where it lies."""
    sign, size = SIDES[side], down.shape[0]
    middle = min(max(int(columns[0].searchsorted(0.0)), 1), size - 1)
    margin = 1 + int(0.06 * size)
    half = slice(0, min(size, middle + margin)) if sign < 0 else slice(max(0, middle - margin), size)
    lateral, height = sign * across[:, half], down[:, half]
    width = anatomy.lung_width * (1 + sign * anatomy.yaw)
    upper = clamp((0.66 - rows) / (0.66 - anatomy.apex))
    wall = np.float32(width) * np.sqrt(1 - upper ** np.float32(2.4))
    wall = wall * (0.95 + 0.08 * rows) - 0.3 * np.maximum(rows - 0.70, 0) ** 2
    cage = ramp(wall - lateral, 0.014)
    cage *= ramp(lateral, 0.01)
    cage *= ramp(_diaphragm(anatomy, side, columns[:, half]) - height, 0.014)
    air = cage * (1 - np.float32(0.93) * silhouette[:, half])
    # The air column is shallow along the wall and at the thick apices.
    air *= np.float32(0.62) + np.float32(0.38) * ramp(wall - lateral - np.float32(0.07), 0.14)
    air *= np.float32(0.80) + np.float32(0.20) * ramp(rows - np.float32(0.26), 0.22)
    return Lung(side, half, lateral, height, wall.astype(np.float32), np.zeros_like(cage), cage, air)


def _diaphragm(anatomy: Anatomy, side: str, columns: Array) -> Array:
    """Height of a hemidiaphragm per column, with the costophrenic angle dropping at the wall, (1, w)."""
    sign = SIDES[side]
    dome = anatomy.diaphragm[0 if sign < 0 else 1]
    offset = (sign * columns - np.float32(0.47 * anatomy.lung_width)) / np.float32(0.53 * anatomy.lung_width)
    drop = np.where(offset > 0, 0.05 * offset**2 + 0.07 * offset.clip(0, 1.1) ** 5, 0.035 * offset**2)
    height: Array = (dome + drop).astype(np.float32)
    return height
