"""Pulmonary vessels."""

import numpy as np

from cmcgns.data.phantom.anatomy import Anatomy
from cmcgns.data.phantom.raster import Array, even_steps, resize, smooth_noise, splat


def draw_vessels(anatomy: Anatomy, size: int) -> Array:
    """Pulmonary vessels: three generations of branches from each hilum, fading outwards, (size, size).

    Drawn as points on fixed grids and resampled, so that every image size shows the same tree.
    """
    rng = np.random.default_rng(anatomy.texture)
    origin = np.tile(np.array([0.075, 0.42], np.float32), (26, 1))
    origin[:13, 0] *= -1
    origin += rng.standard_normal(origin.shape, dtype=np.float32) * np.array([0.008, 0.03], np.float32)
    fan = np.tile(np.linspace(-1.35, 1.5, 13, dtype=np.float32), 2)
    fan[:13] = np.float32(np.pi) - fan[:13]
    angle = fan + np.float32(0.08) * rng.standard_normal(26, dtype=np.float32)
    strength = anatomy.vessels
    trunks, origin, angle = _grow(rng, origin, angle, 0.30, 24, 6.7 * strength)
    branches, origin, angle = _grow(rng, origin, angle, 0.17, 18, 10.9 * strength)
    twigs, _, _ = _grow(rng, origin, angle, 0.10, 8, 7.0 * strength)
    canvas = resize(_draw_branches(anatomy, trunks, 64), size)
    canvas += resize(_draw_branches(anatomy, np.concatenate((branches, twigs), axis=1), 128), size)
    canvas += np.float32(0.013) * smooth_noise(rng, 40, size)
    return canvas


def _grow(
    rng: np.random.Generator, origin: Array, angle: Array, length: float, steps: int, strength: float
) -> tuple[Array, Array, Array]:
    """Curved branches (3, points; across, down, weight), and the origins and angles of their forks."""
    reach, bend, *turns = rng.random((8, len(angle), 1), dtype=np.float32)
    reach = np.float32(length) * (np.float32(0.7) + np.float32(0.45) * reach)
    bend = np.float32(1.3) * (bend - np.float32(0.5))
    t = even_steps(steps)
    cosine, sine = np.cos(angle)[:, None], np.sin(angle)[:, None]
    along = reach * t
    aside = along * t * bend
    across, down = (
        origin[:, :1] + along * cosine - aside * sine,
        origin[:, 1:] + along * sine + aside * cosine,
    )
    # Weight per point does not depend on how densely the curve is sampled.
    weight = (reach * np.float32(strength / steps)) * (1 - np.float32(0.75) * t)
    forks = [int(0.35 * steps), int(0.6 * steps), int(0.85 * steps)]
    turn = np.concatenate(turns[:3], axis=1) * np.float32(0.5) + np.float32(0.3)
    turn *= np.sign(np.concatenate(turns[3:], axis=1) - np.float32(0.5))
    turn += angle[:, None] + bend * t[forks]
    points = np.array((across.ravel(), down.ravel(), weight.ravel()))
    return points, np.array((across[:, forks].ravel(), down[:, forks].ravel())).T, turn.ravel()


def _draw_branches(anatomy: Anatomy, points: Array, grid: int) -> Array:
    across, down, weight = points
    x, y = anatomy.to_image(across, down)
    return splat(x, y, weight, grid)
