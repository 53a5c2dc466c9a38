"""Pulmonary vessels."""

from typing import NamedTuple

import numpy as np

from cmcgns.data.phantom.anatomy import Anatomy
from cmcgns.data.phantom.raster import Array, even_steps, resize, smooth_noise, splat

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
