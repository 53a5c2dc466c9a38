"""What varies between normal frontal chests, in body coordinates, and the canvas that one is drawn on.

Body coordinates: ``across`` is 0 at the midline and negative on the patient's right, which a radiograph
shows on the image's left; ``down`` is 0 at the top and 1 at the bottom of a nominal frame.
"""

from dataclasses import dataclass

import numpy as np

from cmcgns.phantom.raster import Array

SIDES: dict[str, int] = {"right": -1, "left": 1}
CENTIMETRES = 36.0
"""Width of a nominal frame; turns a diameter in centimetres into relative units."""


@dataclass(frozen=True)
class Anatomy:
    """Everything random about a normal chest and its exposure, in relative units, before any pixel exists."""

    scale: tuple[float, float]
    centre: tuple[float, float]
    tilt: float
    yaw: float
    lung_width: float
    apex: float
    diaphragm: tuple[float, float]  # right, left
    wall: float
    heart_ratio: float
    knob: float
    ribs: tuple[float, float, float, float]  # spacing, phase, slope, contrast
    clavicle: tuple[float, float]  # height, rise
    breast: float
    stomach: float
    vessels: float
    exposure: tuple[float, float, float]  # offset, gain, curve
    noise: float
    texture: int

    def to_image(self, across: Array, down: Array) -> tuple[Array, Array]:
        """Turn body coordinates into relative image positions (x, y) of the same shape."""
        x = self.centre[0] + across * self.scale[0] + self.tilt * (down - 0.5)
        y = self.centre[1] + (down - 0.5) * self.scale[1] - self.tilt * across
        return x, y


def draw_anatomy(patient: np.random.Generator, study: np.random.Generator, sex: str, view: str) -> Anatomy:
    """Draw one chest: the body comes from the patient's generator, pose and exposure from the study's."""
    right = patient.uniform(0.70, 0.765)
    size = patient.uniform(0.93, 1.10)
    portable = view == "AP"
    tilt_spread = 0.035 if portable else 0.018
    return Anatomy(
        scale=(size * study.uniform(0.97, 1.03), size * patient.uniform(0.95, 1.03)),
        centre=(0.5 + study.normal(0, 0.014), 0.5 + study.normal(0, 0.014)),
        tilt=float(study.normal(0, tilt_spread)),
        yaw=float(study.normal(0, 0.02)),
        lung_width=patient.uniform(0.345, 0.395),
        apex=patient.uniform(0.075, 0.105),
        diaphragm=(right, right + patient.uniform(0.012, 0.04)),
        wall=patient.uniform(0.07, 0.15),
        heart_ratio=patient.uniform(0.40, 0.475) + (0.018 if portable else 0.0),
        knob=patient.uniform(0.3, 1.2),
        ribs=(
            patient.uniform(0.070, 0.080),
            patient.uniform(0, 1),
            patient.uniform(0.7, 1.3),
            study.uniform(0.06, 0.10),
        ),
        clavicle=(study.uniform(0.155, 0.19), study.uniform(0.05, 0.10)),
        breast=patient.uniform(0.03, 0.085) if sex == "F" else 0.0,
        stomach=patient.uniform(0.03, 0.06) if patient.random() < 0.6 else 0.0,
        vessels=study.uniform(0.8, 1.2),
        exposure=(study.uniform(-0.03, 0.04), study.uniform(0.90, 1.06), study.uniform(-0.25, 0.2)),
        noise=study.uniform(0.006, 0.016),
        texture=int(patient.integers(2**31)),
    )


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
