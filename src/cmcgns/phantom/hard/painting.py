"""How the findings of the hard level change the chest and leave their masks; the others are painted as plain ones."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cmcgns.phantom.anatomy import SIDES, Chest
from cmcgns.phantom.findings import FindingPlan
from cmcgns.phantom.painting import mask_of, paint_finding
from cmcgns.phantom.raster import Array, ramp


def paint_hard_finding(chest: Chest, plan: FindingPlan) -> NDArray[np.bool_]:
    """Draw one finding into ``chest`` and return its mask (H, W), which is never empty."""
    painter = _PAINTERS.get(plan.label)
    if painter is None:
        return paint_finding(chest, plan)
    return mask_of(painter(chest, plan), plan)


def _offsets(chest: Chest, plan: FindingPlan) -> tuple[Array, Array]:
    """Positions from the finding's centre, (H, W) each."""
    sign = SIDES.get(plan.side, 1)
    return chest.across - np.float32(sign * plan.centre[0]), chest.down - np.float32(plan.centre[1])


def _radius(chest: Chest, plan: FindingPlan) -> Array:
    across, down = _offsets(chest, plan)
    radius: Array = np.hypot(across, down)
    return radius


def _fill(chest: Chest, plan: FindingPlan, share: Array) -> None:
    """Take air from the lung in which the finding lies; ``share`` is (H, W)."""
    lung = chest.lungs[plan.side]
    chest.fill(lung, share[:, lung.columns])


def _paint_nodule(chest: Chest, plan: FindingPlan) -> Array:
    size, contrast = plan.extent
    disc = ramp(np.float32(size) - _radius(chest, plan), max(0.014, 0.9 / chest.size))
    _fill(chest, plan, np.float32(contrast) * disc)
    return disc


def _paint_calcification(chest: Chest, plan: FindingPlan) -> Array:
    """Small and dense: it keeps the ribs and vessels that it projects over."""
    size, contrast = plan.extent
    spot = ramp(np.float32(size) - _radius(chest, plan), max(0.008, 0.9 / chest.size))
    chest.density += np.float32(contrast) * spot
    return spot


def _paint_cavity(chest: Chest, plan: FindingPlan) -> Array:
    """A wall round air; the mask holds both."""
    size, contrast = plan.extent
    radius = _radius(chest, plan)
    disc = ramp(np.float32(size) - radius, 0.012)
    wall = disc * ramp(radius - np.float32(0.55 * size), 0.014)
    _fill(chest, plan, np.float32(contrast) * wall)
    chest.density -= np.float32(0.05) * (disc - wall)
    return disc


def _paint_atelectasis(chest: Chest, plan: FindingPlan) -> Array:
    """A band above the diaphragm, thin and a little oblique."""
    across, down = _offsets(chest, plan)
    length, slope = plan.extent
    band = ramp(np.float32(0.014) - np.abs(down - np.float32(slope) * across), max(0.012, 0.9 / chest.size))
    band *= ramp(np.float32(length) - np.abs(across), 0.03)
    lung = chest.lungs[plan.side]
    band[:, lung.columns] *= lung.cage * (lung.air > 0.1)
    _fill(chest, plan, np.float32(plan.amount) * band)
    return band


def _paint_hernia(chest: Chest, plan: FindingPlan) -> Array:
    """Behind the heart: fluid below a level, a bubble of air above it, in a thin wall."""
    across, down = _offsets(chest, plan)
    size, contrast = plan.extent
    disc = ramp(np.float32(size) - np.hypot(across, down), 0.014)
    bubble = ramp(np.float32(0.78 * size) - np.hypot(across, down), 0.014) * ramp(-down, 0.01)
    chest.density += np.float32(contrast) * (np.float32(0.6) * disc - np.float32(1.7) * bubble)
    return disc


_PAINTERS: dict[str, Callable[[Chest, FindingPlan], Array]] = {
    "Nodule": _paint_nodule,
    "Calcification": _paint_calcification,
    "Lung Cavity": _paint_cavity,
    "Atelectasis": _paint_atelectasis,
    "Hernia": _paint_hernia,
}
