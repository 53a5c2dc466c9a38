"""A normal chest, part by part: outlines, bones and soft tissue, vessels."""

from typing import NamedTuple

import numpy as np

from cmcgns.phantom.anatomy import SIDES, Anatomy, Chest, Lung
from cmcgns.phantom.raster import Array, bump, clamp, even_steps, ramp, resize, smooth_noise, splat, window


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


_TRUNKS = 13
"""Trunks a side."""

_HILA = np.repeat(np.array([[-0.075, 0.42], [0.075, 0.42]], np.float32), _TRUNKS, axis=0)
_HILUM_SPREAD = np.array([0.008, 0.03], np.float32)
_FAN = np.linspace(-1.35, 1.5, _TRUNKS, dtype=np.float32)
_FAN = np.concatenate((np.float32(np.pi) - _FAN, _FAN))


class _Branches(NamedTuple):
    """Curved branches as points in body coordinates."""

    across: Array  # (branches, points)
    down: Array  # (branches, points)
    weight: Array  # (branches, points)
    angle: Array  # (branches, 1), in which a branch sets out
    bend: Array  # (branches, 1)
    turns: list[Array]  # six of (branches, 1): how far its three forks turn off, and to which side


def draw_vessels(anatomy: Anatomy, size: int) -> Array:
    """Pulmonary vessels: three generations of branches from each hilum, fading outwards, (size, size).

    Drawn as points on fixed grids and resampled, so that every image size shows the same tree.
    """
    rng = np.random.default_rng(anatomy.texture)
    origin = _HILA + rng.standard_normal(_HILA.shape, dtype=np.float32) * _HILUM_SPREAD
    angle = _FAN + np.float32(0.08) * rng.standard_normal(len(_FAN), dtype=np.float32)
    trunks = _grow(rng, origin, angle, 0.30, 24, 6.7 * anatomy.vessels)
    branches = _grow(rng, *_fork(trunks), 0.17, 18, 10.9 * anatomy.vessels)
    twigs = _grow(rng, *_fork(branches), 0.10, 8, 7.0 * anatomy.vessels)
    canvas = resize(_draw_branches(anatomy, [trunks], 64), size)
    canvas += resize(_draw_branches(anatomy, [branches, twigs], 128), size)
    canvas += np.float32(0.013) * smooth_noise(rng, 40, size)
    return canvas


def _grow(
    rng: np.random.Generator, origin: Array, angle: Array, length: float, steps: int, strength: float
) -> _Branches:
    """A curved branch of ``steps`` points from each origin (n, 2; across, down) and angle (n,)."""
    reach, bend, *turns = rng.random((8, len(angle), 1), dtype=np.float32)
    reach = np.float32(length) * (np.float32(0.7) + np.float32(0.45) * reach)
    bend = np.float32(1.3) * (bend - np.float32(0.5))
    t, angle = even_steps(steps), angle[:, None]
    cosine, sine = np.cos(angle), np.sin(angle)
    along = reach * t
    aside = along * t * bend
    across = origin[:, :1] + along * cosine - aside * sine
    down = origin[:, 1:] + along * sine + aside * cosine
    # Weight per point does not depend on how densely the curve is sampled.
    weight = (reach * np.float32(strength / steps)) * (1 - np.float32(0.75) * t)
    return _Branches(across, down, weight, angle, bend, turns)


def _fork(branches: _Branches) -> tuple[Array, Array]:
    """Origins (n, 2; across, down) and angles (n,) of three forks of each branch."""
    steps = branches.across.shape[1]
    forks = [int(0.35 * steps), int(0.6 * steps), int(0.85 * steps)]
    turn = np.concatenate(branches.turns[:3], axis=1) * np.float32(0.5) + np.float32(0.3)
    turn *= np.sign(np.concatenate(branches.turns[3:], axis=1) - np.float32(0.5))
    turn += branches.angle + branches.bend * even_steps(steps)[forks]
    origin = np.array((branches.across[:, forks].ravel(), branches.down[:, forks].ravel())).T
    return origin, turn.ravel()


def _draw_branches(anatomy: Anatomy, generations: list[_Branches], grid: int) -> Array:
    across, down, weight = (
        np.concatenate([getattr(each, name).ravel() for each in generations]) for name in ("across", "down", "weight")
    )
    x, y = anatomy.to_image(across, down)
    return splat(x, y, weight, grid)
