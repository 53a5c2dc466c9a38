"""The canvas that a chest is drawn on: density, and how much air and bone lies where."""

from dataclasses import dataclass

import numpy as np

from cmcgns.data.phantom.anatomy import Anatomy
from cmcgns.data.phantom.raster import Array

AIR_CONTRAST = 0.54
"""Density that an air-filled lung lacks against soft tissue."""


@dataclass
class Lung:
    """One lung on the canvas; arrays cover all rows and the columns of ``columns``."""

    side: str
    columns: slice
    lateral: Array  # distance from the midline, (H, w)
    down: Array  # (H, w)
    wall: Array  # outer border per row, (H, 1)
    bone: Array  # what the ribs add to the density, (H, w)
    cage: Array  # 1 inside the thoracic cage above the diaphragm, (H, w)
    air: Array  # share of the air column that is left, (H, w)


@dataclass
class Chest:
    """A chest on a canvas; findings change ``density``, ``vessels`` and the lungs' ``air`` in place."""

    anatomy: Anatomy
    size: int
    across: Array  # (H, W)
    down: Array  # (H, W)
    rows: Array  # nominal down coordinate of each row, (H, 1)
    columns: Array  # nominal across coordinate of each column, (1, W)
    density: Array  # (H, W)
    vessels: Array  # (H, W), still to be added where there is air
    heart: Array  # cardiac silhouette, (H, W)
    lungs: dict[str, Lung]

    def fill(self, lung: Lung, share: Array) -> None:
        """Replace a ``share`` (H, w) of the air in ``lung`` by fluid or tissue; hides the vessels there."""
        lost = lung.air * share
        self.density[:, lung.columns] += np.float32(AIR_CONTRAST) * lost
        lung.air -= lost
        # Against fluid instead of air, beam hardening and scatter leave ribs barely visible.
        self.density[:, lung.columns] -= np.float32(0.7) * share * lung.bone
