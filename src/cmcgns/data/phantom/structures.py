"""What lies within the outlines of a normal chest: bones, airway, hila and soft tissue."""

import numpy as np

from cmcgns.data.phantom.anatomy import SIDES
from cmcgns.data.phantom.canvas import Chest, Lung
from cmcgns.data.phantom.raster import Array, bump, ramp, window


def draw_midline(chest: Chest) -> None:
    """Spine with discs, and the trachea."""
    anatomy, density, rows, across = chest.anatomy, chest.density, chest.rows, chest.across
    middle = int(chest.size * anatomy.centre[0])
    reach = int(0.14 * chest.size)
    near = slice(max(0, middle - reach), middle + reach)
    shifted = np.abs(across[:, near] - np.float32(0.4 * anatomy.yaw))
    discs = np.float32(0.055) + np.float32(0.018) * np.cos(rows * np.float32(2 * np.pi / 0.056))
    density[:, near] += ramp(np.float32(0.043) - shifted, 0.02) * discs
    trachea = np.float32(-0.17) * ramp(np.float32(0.355) - rows, 0.05) * ramp(rows - np.float32(0.02), 0.08)
    tube = np.abs(across[:, near] + np.float32(0.018) * bump(rows, 0.32, 0.08))
    density[:, near] += ramp(np.float32(0.021) - tube, 0.016) * trachea


def draw_soft_tissue(chest: Chest, lung: Lung) -> None:
    """Hilum, breast, and the stomach's bubble below the left hemidiaphragm."""
    anatomy, density, rows = chest.anatomy, chest.density[:, lung.columns], chest.rows
    hilum = 0.425 if lung.side == "right" else 0.405
    band = window(rows, hilum - 0.16, hilum + 0.16)
    lobe = np.float32(0.13) * bump(rows[band], hilum, 0.075)
    density[band] += lobe * bump(lung.lateral[band], 0.085, 0.05) * lung.air[band]
    if anatomy.breast:
        band = window(rows, 0.45, 0.90)
        radius = ((lung.lateral[band] - 0.21) / 0.16) ** 2 + ((lung.down[band] - 0.68) / 0.14) ** 2
        density[band] += np.float32(anatomy.breast) * ramp(1 - radius, 0.45)
    if anatomy.stomach and lung.side == "left":
        band = window(rows, 0.70, 1.0)
        below = lung.down[band] - np.float32(anatomy.diaphragm[1] + anatomy.stomach + 0.03)
        radius = ((lung.lateral[band] - 0.16) / 1.5) ** 2 + below * below
        density[band] -= np.float32(0.13) * ramp(np.float32(anatomy.stomach**2) - radius, 0.003)


def draw_ribs(chest: Chest, lung: Lung, silhouette: Array) -> None:
    """Posterior ribs as bands falling towards the side, anterior arcs fainter and falling to the midline."""
    spacing, phase, slope, contrast = chest.anatomy.ribs
    lateral = lung.lateral
    turn = 2 * np.pi / spacing
    squared = lateral**2
    fall = np.float32(0.12 * slope) * lateral + np.float32(0.55 * slope) * squared
    fall *= np.float32(1.25) - np.float32(0.8) * (lung.down - np.float32(0.2))
    posterior = np.cos((lung.down - fall) * np.float32(turn) + np.float32(2 * np.pi * phase))
    posterior = ramp(posterior - np.float32(0.22), 0.5)
    posterior *= np.float32(1.35) - np.float32(0.45) * posterior  # cortex: edges denser than the marrow
    rise = np.float32(0.62 * slope) * lateral - np.float32(0.5) * squared
    anterior = np.cos((lung.down + rise) * np.float32(turn / 1.12) + np.float32(7 * phase))
    anterior = ramp(anterior - np.float32(0.15), 0.6)
    anterior *= np.float32(0.5) * ramp(lateral - np.float32(0.17), 0.14)
    posterior += anterior
    posterior *= np.float32(0.10) + lung.cage * (np.float32(0.90) - np.float32(0.62) * silhouette)
    posterior *= np.float32(contrast) * ramp(lung.wall + np.float32(0.03) - lateral, 0.04)
    chest.density[:, lung.columns] += posterior
    lung.bone = posterior


def draw_shoulder(chest: Chest, lung: Lung) -> None:
    """Clavicle, scapula and humeral head."""
    height, rise = chest.anatomy.clavicle
    band = window(chest.rows, 0.0, 0.32)
    lateral, down = lung.lateral[band], lung.down[band]
    column = SIDES[lung.side] * chest.columns[:, lung.columns]
    line = height - rise * column / 0.35 + 0.011 * np.sin(column * np.float32(2 * np.pi / 0.5))
    clavicle = ramp(np.float32(0.0135) - np.abs(down - line.astype(np.float32)), 0.014)
    clavicle *= np.float32(0.13) * ramp(lateral - np.float32(0.04), 0.02)
    clavicle *= ramp(np.float32(0.42) - lateral, 0.03)
    head = np.float32(0.0055) - (lateral - np.float32(0.49)) ** 2
    head -= np.float32(0.7) * (down - np.float32(0.175)) ** 2
    clavicle += np.float32(0.09) * ramp(head, 0.003)
    chest.density[band, lung.columns] += clavicle
    band = window(chest.rows, 0.10, 0.53)
    rows = chest.rows[band]
    edge = np.float32(0.275) + np.float32(0.16) * (rows - np.float32(0.2)) + np.float32(0.05) * bump(rows, 0.2, 0.06)
    blade = ramp(lung.lateral[band] - edge, 0.02)
    blade *= np.float32(0.055) * ramp(rows - np.float32(0.13), 0.05) * ramp(np.float32(0.44) - rows, 0.16)
    chest.density[band, lung.columns] += blade
