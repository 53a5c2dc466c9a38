"""How each finding, foreign objects among them, changes the chest and leaves its mask."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cmcgns.phantom.anatomy import CENTIMETRES, SIDES, Chest, Lung
from cmcgns.phantom.findings import FindingPlan
from cmcgns.phantom.raster import Array, clamp, ramp, smooth_noise, stroke


def _paint_object(chest: Chest, plan: FindingPlan) -> Array:
    """Metal or plastic: brighter and sharper than anything of the body."""
    shape = _OBJECTS[plan.kind](chest, plan)
    brightness = 0.80 if plan.kind in ("central line", "endotracheal tube") else 1.02
    chest.density += (np.float32(brightness + 0.12) - chest.density).clip(0.12) * shape
    return shape


def draw_line(
    chest: Chest, points: list[tuple[float, float]], width: float, parts: int = 3, sway: float = 0.0
) -> Array:
    """A line through body coordinates, (H, W), in ``parts`` pieces a point; ``sway`` bends it up and down."""
    knots = np.array(points)
    t = np.linspace(0, 1, parts * len(knots))
    at = np.linspace(0, 1, len(knots))
    across, down = (np.interp(t, at, knots[:, i]) for i in (0, 1))
    down = down + sway * np.sin(np.linspace(0, 2 * np.pi, len(t)))
    x, y = chest.anatomy.to_image(across.astype(np.float32), down.astype(np.float32))
    return stroke(np.stack((x, y), axis=1).astype(np.float64), width, chest.size)


def _pacemaker(chest: Chest, plan: FindingPlan) -> Array:
    sign = SIDES[plan.side]
    across, down = chest.across - np.float32(sign * 0.285), chest.down - np.float32(0.25 + plan.extent[1])
    corner = (across / np.float32(0.052)) ** 4 + (down / np.float32(0.042)) ** 4
    wire = [(0.25, 0.23), (0.19, 0.18), (0.09, 0.19), (0.05 if sign < 0 else -0.01, 0.26)]
    lead = [(sign * u, v) for u, v in wire] + [(-0.05, 0.40), (-0.06, 0.55), (-0.02, 0.67), (0.09, 0.70)]
    shape: Array = np.maximum(ramp(1 - corner, 0.5), draw_line(chest, lead, 0.008))
    return shape


def _central_line(chest: Chest, plan: FindingPlan) -> Array:
    sign = SIDES[plan.side]
    entry = [(sign * 0.13, -0.02), (sign * 0.11, 0.10)]
    route = [(-0.065, 0.20)] if sign < 0 else [(0.06, 0.19), (-0.02, 0.23)]
    points = [*entry, *route, (-0.052, 0.30), (-0.055, 0.42 + plan.extent[1])]
    return draw_line(chest, points, 0.009)


def _endotracheal_tube(chest: Chest, plan: FindingPlan) -> Array:
    points = [(0.0, -0.03), (0.002, 0.12), (-0.004, 0.26 + plan.extent[1])]
    return draw_line(chest, points, 0.017)


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


def paint_finding(chest: Chest, plan: FindingPlan) -> NDArray[np.bool_]:
    """Draw one finding into ``chest`` and return its mask (H, W), which is never empty."""
    if plan.label == "Cardiomegaly":  # its ratio went into the silhouette when the chest was drawn
        strength = chest.heart
    elif plan.label == "Foreign Object":
        strength = _paint_object(chest, plan)
    else:
        lung, strength = chest.lungs[plan.side], np.zeros((chest.size, chest.size), np.float32)
        strength[:, lung.columns] = _LUNG_PAINTERS[plan.label](chest, lung, plan)
    return mask_of(strength, plan)


def mask_of(strength: Array, plan: FindingPlan) -> NDArray[np.bool_]:
    """Where half or more of a finding is, (H, W); of what is thinner than a pixel the one that shows most of it."""
    mask: NDArray[np.bool_] = strength > 0.5
    mask = mask if mask.any() else strength >= strength.max()
    if mask.all():
        raise RuntimeError(f"{plan.label} left no trace at size {len(strength)}: {plan}")
    return mask


def _distance(lung: Lung, plan: FindingPlan) -> Array:
    """Squared distance from the finding's centre in half-axes, (H, w)."""
    distance: Array = ((lung.lateral - plan.centre[0]) / plan.extent[0]) ** 2
    distance += ((lung.down - plan.centre[1]) / plan.extent[1]) ** 2
    return distance


def _paint_edema(chest: Chest, lung: Lung, plan: FindingPlan) -> Array:
    """Bat-wing haze, blurred thick vessels and, at the sides of the bases, septal lines."""
    wing = np.exp(-_distance(lung, plan))
    patches = smooth_noise(np.random.default_rng(plan.texture), 26, chest.size)[:, lung.columns]
    chest.vessels[:, lung.columns] *= np.float32(1 + 1.2 * plan.amount)
    septa = np.cos(lung.down * np.float32(2 * np.pi / 0.022))
    septa *= ramp(lung.lateral - np.float32(0.82) * lung.wall, 0.03)
    septa *= np.float32(0.25) * ramp(np.float32(0.12) - np.abs(lung.down - np.float32(0.68)), 0.04)
    visible = wing * (lung.air > 0.3)
    haze = np.float32(plan.amount) * wing * (1.15 + 0.35 * patches) + np.float32(plan.amount) * septa
    chest.fill(lung, haze.clip(0, 0.9))
    # Half of the haze's peak is where the wing still reads as abnormal.
    return visible + np.float32(0.1) * (visible > 0.4)


def _paint_effusion(chest: Chest, lung: Lung, plan: FindingPlan) -> Array:
    """Fluid from the costophrenic angle upwards, with a meniscus that climbs the lateral wall."""
    base = chest.anatomy.diaphragm[0 if plan.side == "right" else 1]
    level = base + 0.045 - plan.amount
    curve = ramp(lung.lateral - np.float32(0.20), 0.34)
    surface = np.float32(level + 0.035) - np.float32(0.10) * curve * curve * curve
    fluid = ramp(lung.down - surface, 0.04)
    mask = fluid * lung.cage * (lung.air > 0.1)
    chest.fill(lung, np.float32(0.96) * fluid)
    return mask


def _paint_consolidation(chest: Chest, lung: Lung, plan: FindingPlan) -> Array:
    """A patchy, ill-defined opacity; behind the heart it shows through the cardiac shadow."""
    patches = smooth_noise(np.random.default_rng(plan.texture), 14, chest.size)[:, lung.columns]
    patch = ramp(1 - np.sqrt(_distance(lung, plan)) + np.float32(0.16) * patches, 0.7)
    patch *= lung.cage
    if plan.place == "retrocardiac region":
        patch *= chest.heart[:, lung.columns]
        chest.density[:, lung.columns] += np.float32(0.12) * patch
        return patch
    mask = patch * (lung.air > 0.1)
    chest.fill(lung, np.float32(plan.amount) * patch * (1 + np.float32(0.08) * patches))
    return mask


def _paint_pneumothorax(chest: Chest, lung: Lung, plan: FindingPlan) -> Array:
    """Air without vessels between the wall and a thin pleural line, deepest at the apex."""
    apex = chest.anatomy.apex
    reach = {"small": 0.24, "moderate": 0.42, "large": 0.75}[plan.degree]
    fade = clamp(1 - (chest.rows - apex) / reach) ** np.float32(0.6)
    if plan.degree == "large":
        fade = np.sqrt(fade * fade + np.float32(0.2))
    # The dome's own curve makes a lateral depth thin at the top; lowering the collapsed apex restores it.
    drop = 1 + 2.6 * clamp(1 - (chest.rows - apex) / (2.8 * plan.amount + 0.04)) ** 2
    depth = (np.float32(plan.amount) * fade * drop).astype(np.float32)
    beyond = depth - (lung.wall - lung.lateral)
    space = ramp(beyond, 0.012) * (fade > 0)
    mask = space * (lung.air > 0.2)
    line = np.float32(0.12) * ramp(np.float32(0.006) - np.abs(beyond), 0.008) * (fade > 0) * (lung.air > 0.1)
    chest.density[:, lung.columns] += line - np.float32(0.16) * space * lung.air
    chest.vessels[:, lung.columns] *= 1 - space
    chest.fill(lung, np.float32(1.1 * plan.amount) * (1 - space))
    return mask


def _paint_nodule(chest: Chest, lung: Lung, plan: FindingPlan) -> Array:
    """A round, well-defined opacity of the stated diameter."""
    radius = plan.amount / 2 / CENTIMETRES
    distance = np.sqrt((lung.lateral - plan.centre[0]) ** 2 + (lung.down - plan.centre[1]) ** 2)
    disc = ramp(np.float32(radius) - distance, max(0.012, 0.7 / chest.size))
    chest.fill(lung, np.float32(0.72) * disc)
    chest.density[:, lung.columns] += np.float32(0.05) * disc
    return disc


_LUNG_PAINTERS: dict[str, Callable[[Chest, Lung, FindingPlan], Array]] = {
    "Effusion": _paint_effusion,
    "Pneumothorax": _paint_pneumothorax,
    "Consolidation": _paint_consolidation,
    "Nodule": _paint_nodule,
    "Edema": _paint_edema,
}
