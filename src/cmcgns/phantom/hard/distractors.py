"""What lies over a hard radiograph and is no finding: leads, letters, folds, nipples, grids, borders, bad exposure.

No report speaks of them and no mask holds them.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from cmcgns.phantom.anatomy import SIDES, Anatomy, Chest
from cmcgns.phantom.painting import draw_line
from cmcgns.phantom.raster import Array, pixel_centres, ramp, smooth_noise, stroke

_LETTERS = {  # strokes in a unit square
    "left": [[(0.2, 0.0), (0.2, 1.0), (0.8, 1.0)]],
    "right": [[(0.2, 1.0), (0.2, 0.0), (0.8, 0.1), (0.75, 0.45), (0.2, 0.5)], [(0.4, 0.5), (0.85, 1.0)]],
}


def vary_anatomy(anatomy: Anatomy, rng: np.random.Generator) -> Anatomy:
    """The same body in a worse picture: turned, cropped, over- or underexposed, noisy, ribs and vessels stronger."""
    zoom = rng.uniform(0.92, 1.13)
    spacing, phase, slope, contrast = anatomy.ribs
    offset, gain, curve = anatomy.exposure
    return replace(
        anatomy,
        scale=(min(anatomy.scale[0] * zoom, 1.18), min(anatomy.scale[1] * zoom, 1.15)),
        centre=(0.5 + _shift(rng, 0.02, 0.04), 0.5 + _shift(rng, 0.02, 0.04)),
        tilt=_shift(rng, 0.055, 0.11),
        yaw=_shift(rng, 0.04, 0.1),
        ribs=(spacing, phase, slope, contrast * rng.uniform(0.8, 1.3)),
        vessels=anatomy.vessels * rng.uniform(0.7, 1.2),
        exposure=(offset + rng.uniform(-0.04, 0.05), gain * rng.uniform(0.82, 1.08), curve + rng.uniform(-0.2, 0.2)),
        noise=rng.uniform(0.006, 0.018),
    )


def _shift(rng: np.random.Generator, spread: float, most: float) -> float:
    return min(max(float(rng.normal(0, spread)), -most), most)


def add_to_body(chest: Chest, rng: np.random.Generator) -> None:
    """Lay over the body what a study happens to have, before its film is developed."""
    for chance, draw in _OVER_BODY:
        if rng.random() < chance:
            draw(chest, rng)


def _add_leads(chest: Chest, rng: np.random.Generator) -> None:
    """Electrodes with wires that leave the picture."""
    for _ in range(int(rng.integers(2, 5))):
        across, down = rng.uniform(-0.36, 0.36), rng.uniform(0.15, 0.75)
        sign = 1 if across > 0 else -1
        bend, end = (across + sign * 0.08, down - rng.uniform(0.0, 0.15)), (sign * 0.62, rng.uniform(0, 0.5))
        chest.density += np.float32(rng.uniform(0.10, 0.2)) * _wire(chest, rng, [(across, down), bend, end], 0.005)
        radius = np.hypot(chest.across - np.float32(across), chest.down - np.float32(down))
        outer, inner = ramp(np.float32(0.017) - radius, 0.008), ramp(np.float32(0.007) - radius, 0.008)
        chest.density += np.float32(rng.uniform(0.14, 0.26)) * outer + np.float32(0.2) * inner


def _wire(chest: Chest, rng: np.random.Generator, knots: list[tuple[float, float]], width: float) -> Array:
    return draw_line(chest, knots, width, 4, rng.uniform(-0.02, 0.02))


def _add_catheter(chest: Chest, rng: np.random.Generator) -> None:
    sign = rng.choice((-1, 1))
    knots = [(sign * 0.14, -0.02), (sign * 0.10, 0.12), (-0.05, 0.24), (-0.055, rng.uniform(0.34, 0.5))]
    chest.density += np.float32(rng.uniform(0.15, 0.3)) * _wire(chest, rng, knots, 0.008)


def _add_skin_fold(chest: Chest, rng: np.random.Generator) -> None:
    """An edge along the chest's side that fades inwards, as a pleural line does not."""
    lung = chest.lungs["right" if rng.random() < 0.5 else "left"]
    edge = rng.uniform(0.24, 0.33) + rng.uniform(-0.12, 0.12) * (chest.rows - np.float32(0.5))
    inside = edge.astype(np.float32) - lung.lateral
    fold = ramp(inside, 0.012) * np.exp(-inside.clip(0) / np.float32(0.05))
    fold *= ramp(np.float32(0.2) - np.abs(chest.rows - np.float32(rng.uniform(0.4, 0.6))), 0.1)
    chest.density[:, lung.columns] += np.float32(rng.uniform(0.04, 0.09)) * fold


def _add_nipples(chest: Chest, rng: np.random.Generator) -> None:
    """A faint pair at one height, which nodules are not."""
    lateral, down = rng.uniform(0.24, 0.29), rng.uniform(0.66, 0.72)
    for sign in SIDES.values():
        radius = np.hypot(chest.across - np.float32(sign * lateral), chest.down - np.float32(down))
        chest.density += np.float32(0.09) * ramp(np.float32(0.016) - radius, 0.016)


def _add_texture(chest: Chest, rng: np.random.Generator) -> None:
    """Cloth, dressings and the like: grain of a size of its own."""
    cells = int(rng.integers(6, 40))
    chest.density += np.float32(rng.uniform(0.004, 0.014)) * smooth_noise(rng, cells, chest.size)


_OVER_BODY: tuple[tuple[float, Callable[[Chest, np.random.Generator], None]], ...] = (
    (0.35, _add_leads),
    (0.15, _add_catheter),
    (0.25, _add_skin_fold),
    (0.20, _add_nipples),
    (0.60, _add_texture),
)


def add_to_film(film: Array, rng: np.random.Generator) -> Array:
    """A gradient of exposure, a letter, a grid and the borders of the field on gray values (H, W) in [0, 1]."""
    size = len(film)
    centres = pixel_centres(size) - np.float32(0.5)
    tilt = rng.uniform(-0.12, 0.12, 2).astype(np.float32)
    film = film * (1 + tilt[0] * centres[None, :] + tilt[1] * centres[:, None])
    if rng.random() < 0.15:
        phase = centres[None, :] * np.float32(2 * np.pi * rng.uniform(15, 45))
        film += np.float32(0.012) * np.sin(phase)
    if rng.random() < 0.7:
        film = np.maximum(film, _letter(rng, size))
    if rng.random() < 0.3:
        edge = int(size * rng.uniform(0.01, 0.05)) + 1
        side = int(rng.integers(4))
        border = (slice(None, edge), slice(-edge, None))[side % 2]
        film[(border, slice(None)) if side < 2 else (slice(None), border)] = 0.02
    clipped: Array = film.clip(0, 1).astype(np.float32)
    return clipped


def _letter(rng: np.random.Generator, size: int) -> Array:
    """L or R in an upper corner: the patient's left is on the image's right."""
    side = "right" if rng.random() < 0.5 else "left"
    left = rng.uniform(0.03, 0.08) if side == "right" else rng.uniform(0.88, 0.92)
    top, scale = rng.uniform(0.03, 0.12), rng.uniform(0.04, 0.06)
    canvas = np.zeros((size, size), np.float32)
    for line in _LETTERS[side]:
        np.maximum(canvas, stroke(np.array(line) * scale + (left, top), 0.01, size), out=canvas)
    return np.float32(rng.uniform(0.75, 0.95)) * canvas
