"""How each finding changes the chest and leaves its mask."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cmcgns.data.phantom.canvas import Chest, Lung
from cmcgns.data.phantom.findings import FindingPlan
from cmcgns.data.phantom.objects import paint_object
from cmcgns.data.phantom.raster import Array, clamp, ramp, smooth_noise

CENTIMETRES = 36.0
"""Width of a nominal frame; turns a nodule's diameter in centimetres into relative units."""


def paint_finding(chest: Chest, plan: FindingPlan) -> NDArray[np.bool_]:
    """Draw one finding into ``chest`` and return its mask (H, W), which is never empty."""
    strength = _PAINTERS[plan.label](chest, plan)
    mask: NDArray[np.bool_] = strength > 0.5
    if not mask.any():  # thinner than a pixel: keep the pixel that shows most of it
        mask = strength >= strength.max()
        if mask.all():
            raise RuntimeError(f"{plan.label} left no trace at size {chest.size}: {plan}")
    return mask


def _on_canvas(chest: Chest, lung: Lung, strength: Array) -> Array:
    canvas = np.zeros((chest.size, chest.size), np.float32)
    canvas[:, lung.columns] = strength
    return canvas


def _paint_cardiomegaly(chest: Chest, plan: FindingPlan) -> Array:
    del plan  # its ratio went into the silhouette when the chest was drawn
    return chest.heart


def _paint_edema(chest: Chest, plan: FindingPlan) -> Array:
    """Bat-wing haze, blurred thick vessels and, at the sides of the bases, septal lines."""
    lung = chest.lungs[plan.side]
    wing = ((lung.lateral - plan.centre[0]) / plan.extent[0]) ** 2
    wing += ((lung.down - plan.centre[1]) / plan.extent[1]) ** 2
    wing = np.exp(-wing)
    rng = np.random.default_rng(plan.texture)
    patches = smooth_noise(rng, 26, chest.size)[:, lung.columns]
    chest.vessels[:, lung.columns] *= np.float32(1 + 1.2 * plan.amount)
    septa = np.cos(lung.down * np.float32(2 * np.pi / 0.022)) * ramp(
        lung.lateral - np.float32(0.82) * lung.wall, 0.03
    )
    septa *= np.float32(0.25) * ramp(np.float32(0.12) - np.abs(lung.down - np.float32(0.68)), 0.04)
    visible = wing * (lung.air > 0.3)
    chest.fill(
        lung,
        (np.float32(plan.amount) * wing * (1.15 + 0.35 * patches) + np.float32(plan.amount) * septa).clip(0, 0.9),
    )
    # Half of the haze's peak is where the wing still reads as abnormal.
    return _on_canvas(chest, lung, visible + np.float32(0.1) * (visible > 0.4))


def _paint_effusion(chest: Chest, plan: FindingPlan) -> Array:
    """Fluid from the costophrenic angle upwards, with a meniscus that climbs the lateral wall."""
    lung = chest.lungs[plan.side]
    base = chest.anatomy.diaphragm[0 if plan.side == "right" else 1]
    level = base + 0.045 - plan.amount
    curve = ramp(lung.lateral - np.float32(0.20), 0.34)
    surface = np.float32(level + 0.035) - np.float32(0.10) * curve * curve * curve
    fluid = ramp(lung.down - surface, 0.04)
    mask = fluid * lung.cage * (lung.air > 0.1)
    chest.fill(lung, np.float32(0.96) * fluid)
    return _on_canvas(chest, lung, mask)


def _paint_consolidation(chest: Chest, plan: FindingPlan) -> Array:
    """A patchy, ill-defined opacity; behind the heart it shows through the cardiac shadow."""
    lung = chest.lungs[plan.side]
    distance = ((lung.lateral - plan.centre[0]) / plan.extent[0]) ** 2
    distance += ((lung.down - plan.centre[1]) / plan.extent[1]) ** 2
    rng = np.random.default_rng(plan.texture)
    patches = smooth_noise(rng, 14, chest.size)[:, lung.columns]
    patch = ramp(1 - np.sqrt(distance) + np.float32(0.16) * patches, 0.7)
    patch *= lung.cage
    if plan.place == "retrocardiac region":
        patch *= chest.heart[:, lung.columns]
        chest.density[:, lung.columns] += np.float32(0.12) * patch
        return _on_canvas(chest, lung, patch)
    mask = patch * (lung.air > 0.1)
    chest.fill(lung, np.float32(plan.amount) * patch * (1 + np.float32(0.08) * patches))
    return _on_canvas(chest, lung, mask)


def _paint_pneumothorax(chest: Chest, plan: FindingPlan) -> Array:
    """Air without vessels between the wall and a thin pleural line, deepest at the apex."""
    lung, apex = chest.lungs[plan.side], chest.anatomy.apex
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
    return _on_canvas(chest, lung, mask)


def _paint_nodule(chest: Chest, plan: FindingPlan) -> Array:
    """A round, well-defined opacity of the stated diameter."""
    lung, radius = chest.lungs[plan.side], plan.amount / 2 / CENTIMETRES
    distance = np.sqrt((lung.lateral - plan.centre[0]) ** 2 + (lung.down - plan.centre[1]) ** 2)
    disc = ramp(np.float32(radius) - distance, max(0.012, 0.7 / chest.size))
    chest.fill(lung, np.float32(0.72) * disc)
    chest.density[:, lung.columns] += np.float32(0.05) * disc
    return _on_canvas(chest, lung, disc)


_Painter = Callable[[Chest, FindingPlan], Array]
_PAINTERS: dict[str, _Painter] = {
    "Effusion": _paint_effusion,
    "Pneumothorax": _paint_pneumothorax,
    "Consolidation": _paint_consolidation,
    "Nodule": _paint_nodule,
    "Cardiomegaly": _paint_cardiomegaly,
    "Edema": _paint_edema,
    "Foreign Object": paint_object,
}
