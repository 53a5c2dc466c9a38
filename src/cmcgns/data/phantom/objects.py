"""Foreign objects: metal and plastic, brighter and sharper than anything of the body."""

from collections.abc import Callable

import numpy as np

from cmcgns.data.phantom.anatomy import SIDES, Anatomy
from cmcgns.data.phantom.canvas import Chest
from cmcgns.data.phantom.findings import FindingPlan
from cmcgns.data.phantom.raster import Array, ramp, stroke


def paint_object(chest: Chest, plan: FindingPlan) -> Array:
    """Metal or plastic: brighter and sharper than anything of the body."""
    shape = _OBJECTS[plan.kind](chest, plan)
    brightness = 0.80 if plan.kind in ("central line", "endotracheal tube") else 1.02
    chest.density += (np.float32(brightness + 0.12) - chest.density).clip(0.12) * shape
    return shape


def _line(anatomy: Anatomy, points: list[tuple[float, float]], width: float, size: int) -> Array:
    """A smooth line through body coordinates."""
    knots = np.array(points)
    t = np.linspace(0, 1, 3 * len(knots))
    at = np.linspace(0, 1, len(knots))
    across, down = (np.interp(t, at, knots[:, i]) for i in (0, 1))
    x, y = anatomy.to_image(across.astype(np.float32), down.astype(np.float32))
    return stroke(np.stack((x, y), axis=1).astype(np.float64), width, size)


def _pacemaker(chest: Chest, plan: FindingPlan) -> Array:
    sign = SIDES[plan.side]
    across, down = chest.across - np.float32(sign * 0.285), chest.down - np.float32(0.25 + plan.extent[1])
    corner = (across / np.float32(0.052)) ** 4 + (down / np.float32(0.042)) ** 4
    wire = [(0.25, 0.23), (0.19, 0.18), (0.09, 0.19), (0.05 if sign < 0 else -0.01, 0.26)]
    lead = [(sign * u, v) for u, v in wire] + [(-0.05, 0.40), (-0.06, 0.55), (-0.02, 0.67), (0.09, 0.70)]
    shape: Array = np.maximum(ramp(1 - corner, 0.5), _line(chest.anatomy, lead, 0.008, chest.size))
    return shape


def _central_line(chest: Chest, plan: FindingPlan) -> Array:
    sign = SIDES[plan.side]
    entry = [(sign * 0.13, -0.02), (sign * 0.11, 0.10)]
    route = [(-0.065, 0.20)] if sign < 0 else [(0.06, 0.19), (-0.02, 0.23)]
    points = [*entry, *route, (-0.052, 0.30), (-0.055, 0.42 + plan.extent[1])]
    return _line(chest.anatomy, points, 0.009, chest.size)


def _endotracheal_tube(chest: Chest, plan: FindingPlan) -> Array:
    points = [(0.0, -0.03), (0.002, 0.12), (-0.004, 0.26 + plan.extent[1])]
    return _line(chest.anatomy, points, 0.017, chest.size)


def _disc_distance(chest: Chest, plan: FindingPlan) -> Array:
    across = chest.across - np.float32(SIDES[plan.side] * plan.centre[0])
    distance: Array = np.sqrt(across**2 + (chest.down - np.float32(plan.centre[1])) ** 2)
    return distance


def _coin(chest: Chest, plan: FindingPlan) -> Array:
    return ramp(np.float32(plan.extent[0]) - _disc_distance(chest, plan), 0.006)


def _ring(chest: Chest, plan: FindingPlan) -> Array:
    thickness = max(0.007, 0.55 / chest.size)
    return ramp(np.float32(thickness) - np.abs(_disc_distance(chest, plan) - np.float32(plan.extent[0])), 0.006)


_OBJECTS: dict[str, Callable[[Chest, FindingPlan], Array]] = {
    "pacemaker": _pacemaker,
    "central line": _central_line,
    "endotracheal tube": _endotracheal_tube,
    "coin": _coin,
    "ring": _ring,
}
