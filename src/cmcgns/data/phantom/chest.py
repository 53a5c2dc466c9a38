"""A normal chest as density on a canvas, and how density becomes a film.

Outlines are one-dimensional profiles (a border per row or per column), so drawing is a few broadcast
operations, and tilt is applied as two small shears.
"""

import numpy as np

from cmcgns.data.phantom.anatomy import SIDES, Anatomy
from cmcgns.data.phantom.canvas import AIR_CONTRAST, Chest
from cmcgns.data.phantom.outlines import draw_body, draw_lung, draw_mediastinum
from cmcgns.data.phantom.raster import Array, clamp, grain, pixel_centres, ramp, smooth_noise
from cmcgns.data.phantom.structures import draw_midline, draw_ribs, draw_shoulder, draw_soft_tissue
from cmcgns.data.phantom.vessels import draw_vessels


def draw_chest(anatomy: Anatomy, size: int, heart_ratio: float) -> Chest:
    """Rasterise a chest whose heart takes ``heart_ratio`` of the thoracic width; (size, size) arrays."""
    centres = pixel_centres(size)
    x, y = centres[None, :] - np.float32(anatomy.centre[0]), centres[:, None] - np.float32(anatomy.centre[1])
    columns, rows = x / np.float32(anatomy.scale[0]), y / np.float32(anatomy.scale[1]) + np.float32(0.5)
    across = columns - (rows - np.float32(0.5)) * np.float32(anatomy.tilt / anatomy.scale[0])
    down = rows + columns * np.float32(anatomy.tilt / anatomy.scale[1])
    silhouette, heart = draw_mediastinum(anatomy, across, down, rows, heart_ratio)
    density = draw_body(anatomy, across, down, rows, columns)
    lungs = {}
    for side in SIDES:
        lungs[side] = lung = draw_lung(anatomy, side, across, down, rows, columns, silhouette)
        density[:, lung.columns] -= np.float32(AIR_CONTRAST) * lung.air
    visible = ramp(rows - np.float32(0.13), 0.16) * ramp(np.float32(0.80) - rows, 0.16)
    density += np.float32(0.05) * visible * silhouette
    density += np.float32(0.05) * heart
    chest = Chest(anatomy, size, across, down, rows, columns, density, draw_vessels(anatomy, size), heart, lungs)
    draw_midline(chest)
    for lung in lungs.values():
        draw_soft_tissue(chest, lung)
        draw_ribs(chest, lung, silhouette[:, lung.columns])
        draw_shoulder(chest, lung)
    return chest


def develop(chest: Chest, noise: np.random.Generator) -> Array:
    """Add vessels and grain, then expose: gray values in [0, 1], bright where dense, shape (H, W)."""
    anatomy, density = chest.anatomy, chest.density
    for lung in chest.lungs.values():
        density[:, lung.columns] += chest.vessels[:, lung.columns] * lung.air
    offset, gain, curve = anatomy.exposure
    density += np.float32(0.016) * smooth_noise(noise, 5, chest.size)
    density.clip(0.0, 1.15, out=density)
    # A shoulder in the curve keeps bone and abdomen from clipping to flat white.
    film = np.float32(offset + 0.02) + np.float32(gain) * density * (np.float32(1.12) - np.float32(0.22) * density)
    film.clip(0.004, 1.0, out=film)
    film *= 1 + np.float32(curve) * (1 - film)
    film += np.float32(anatomy.noise) * grain(noise, chest.size)
    film += np.float32(0.6 * anatomy.noise) * smooth_noise(noise, 40, chest.size)
    return clamp(film, film)
