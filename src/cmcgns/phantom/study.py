"""One synthetic study: patient, image, report and ground truth from a seed and an index.

Outlines are one-dimensional profiles (a border per row or per column), so drawing is a few broadcast
operations, and tilt is applied as two small shears.

Nothing depends on how many studies are made or in which order: every random stream is keyed by the seed and
by the study's or the patient's own number.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmcgns.common.errors import UserError
from cmcgns.phantom.anatomy import AIR_CONTRAST, SIDES, Anatomy, Chest, draw_anatomy
from cmcgns.phantom.findings import FINDINGS, FindingPlan, draw_findings
from cmcgns.phantom.language import compose_report
from cmcgns.phantom.painting import paint_finding
from cmcgns.phantom.raster import Array, bounding_box, clamp, grain, pixel_centres, ramp, smooth_noise
from cmcgns.phantom.structures import (
    draw_body,
    draw_lung,
    draw_mediastinum,
    draw_midline,
    draw_ribs,
    draw_shoulder,
    draw_soft_tissue,
    draw_vessels,
)


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


PATIENT_BLOCK = 12
"""Patients never straddle a multiple of this many study indices."""

SMALLEST_SIZE, LARGEST_SIZE = 32, 4096

Region = NDArray[np.bool_]
"""Where a finding is, (H, W)."""

_PARTITION, _PATIENT, _POSE, _TRUTH, _REPORT, _GRAIN = range(6)


@dataclass(frozen=True)
class DrawnFinding:
    """A finding as drawn: ``box`` is (x, y, width, height) in pixels, tight round the finding's own mask.

    ``certain`` says whether the report states the finding outright; it is present either way.
    """

    label: str
    side: str
    place: str
    degree: str
    certain: bool
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Study:
    """A synthetic study with ground truth.

    ``image`` is (H, W) grayscale with dense tissue bright; ``mask`` (H, W) is a label map, 0 for background
    and ``1 + FINDINGS.index(label)`` elsewhere, where later findings cover earlier ones; of a hard study, uint16
    with a bit a label. ``names`` are the labels that its level knows.
    """

    study_id: str
    patient_id: str
    image: NDArray[np.uint8]
    findings_text: str
    impression: str
    findings: tuple[DrawnFinding, ...]
    mask: NDArray[np.uint8] | NDArray[np.uint16]
    sex: str
    age: int
    view: str
    names: tuple[str, ...] = FINDINGS

    @property
    def labels(self) -> dict[str, int]:
        """1 or 0 for each of ``names``."""
        present = {finding.label for finding in self.findings}
        return {label: int(label in present) for label in self.names}


@dataclass(frozen=True)
class StudyPlan:
    """Everything about a study except its pixels."""

    study_id: str
    patient_id: str
    sex: str
    age: int
    view: str
    anatomy: Anatomy
    findings: tuple[FindingPlan, ...]
    findings_text: str
    impression: str
    grain: tuple[int, ...]

    def without(self, labels: Collection[str]) -> "StudyPlan":
        """The counterfactual: same patient, pose and noise without ``labels``; the text stays as it was."""
        return replace(self, findings=tuple(plan for plan in self.findings if plan.label not in labels))

    def with_picture(
        self,
        image: NDArray[np.uint8],
        mask: NDArray[np.uint8] | NDArray[np.uint16],
        findings: Iterable[DrawnFinding],
        names: tuple[str, ...] = FINDINGS,
    ) -> Study:
        """The study of this plan, as it was drawn."""
        return Study(
            self.study_id, self.patient_id, image, self.findings_text, self.impression, tuple(findings), mask,
            self.sex, self.age, self.view, names,
        )  # fmt: skip


def make_study(seed: int, index: int, size: int = 128) -> Study:
    """Make the study number ``index`` of the endless series that ``seed`` names.

    Args:
        seed: names the series; not negative.
        index: number of the study in the series; not negative.
        size: height and width of the image in pixels, at least 32.

    Raises:
        UserError: if one of the numbers is out of range.
    """
    check_side(size)
    plan = plan_study(seed, index)
    return plan.with_picture(*render(plan, size))


def check_side(size: int) -> None:
    """Raise if images of this height and width cannot be drawn."""
    if size < SMALLEST_SIZE:
        raise UserError(f"size {size} is too small for a synthetic radiograph; take {SMALLEST_SIZE} or more")
    if size > LARGEST_SIZE:
        raise UserError(f"size {size} is too large for a synthetic radiograph; take at most {LARGEST_SIZE}")


def plan_study(seed: int, index: int) -> StudyPlan:
    """Draw patient, anatomy, findings and report of a study without drawing its image."""
    patient = draw_patient(seed, index, _PATIENT, _POSE)
    findings = draw_findings(np.random.default_rng((seed, _TRUTH, index)))
    text, impression = compose_report(np.random.default_rng((seed, _REPORT, index)), findings)
    return StudyPlan(
        f"phantom-{seed}-{index:06d}", f"phantom-{seed}-{patient.name}", patient.sex, patient.age, patient.view,
        patient.anatomy, findings, text, impression, grain=(seed, _GRAIN, index),
    )  # fmt: skip


class DrawnPatient(NamedTuple):
    """Whose study it is, and how it is taken; ``pose`` draws whatever else differs between a patient's studies."""

    name: str
    sex: str
    age: int
    view: str
    anatomy: Anatomy
    pose: np.random.Generator


def draw_patient(seed: int, index: int, body: int, pose: int) -> DrawnPatient:
    """Draw the patient of a study; one to three studies a patient.

    Args:
        seed: names the series.
        index: of the study.
        body: number of the patient's random stream.
        pose: number of the study's.
    """
    if seed < 0 or index < 0:
        raise UserError(f"seed {seed} and index {index} must not be negative")
    block, position = divmod(index, PATIENT_BLOCK)
    number = _partition(seed, block)[position]
    own, posed = np.random.default_rng((seed, body, block, number)), np.random.default_rng((seed, pose, index))
    sex, age = ("F" if own.random() < 0.48 else "M"), int(own.triangular(18, 62, 96))
    view = "AP" if posed.random() < 0.35 else "PA"
    return DrawnPatient(f"p{block:05d}{number:02d}", sex, age, view, draw_anatomy(own, posed, sex, view), posed)


@lru_cache(maxsize=64)
def _partition(seed: int, block: int) -> list[int]:
    """The patient's number for each study of a block."""
    rng = np.random.default_rng((seed, _PARTITION, block))
    counts = 1 + np.searchsorted((0.72, 0.92), rng.random(PATIENT_BLOCK))
    numbers: list[int] = np.repeat(np.arange(PATIENT_BLOCK), counts)[:PATIENT_BLOCK].tolist()
    return numbers


def render(plan: StudyPlan, size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], list[DrawnFinding]]:
    """Draw a plan: image (size, size), label map (size, size) and the findings with their boxes."""
    chest, regions = paint_chest(plan, size, paint_finding)
    mask = np.zeros((size, size), np.uint8)
    for item, region in zip(plan.findings, regions, strict=True):
        mask[region] = 1 + FINDINGS.index(item.label)
    findings = [drawn_finding(item, region) for item, region in zip(plan.findings, regions, strict=True)]
    return to_gray(develop(chest, np.random.default_rng(plan.grain))), mask, findings


def paint_chest(
    plan: StudyPlan, size: int, paint: Callable[[Chest, FindingPlan], Region]
) -> tuple[Chest, list[Region]]:
    """Draw a plan's chest with ``paint`` adding its findings: the chest, to be developed, and a mask a finding."""
    ratios = [item.amount for item in plan.findings if item.label == "Cardiomegaly"]
    chest = draw_chest(plan.anatomy, size, ratios[0] if ratios else plan.anatomy.heart_ratio)
    return chest, [paint(chest, item) for item in plan.findings]


def drawn_finding(plan: FindingPlan, region: Region) -> DrawnFinding:
    """A planned finding with the box of its mask (H, W)."""
    return DrawnFinding(plan.label, plan.side, plan.place, plan.degree, plan.certain, bounding_box(region))


def to_gray(film: Array) -> NDArray[np.uint8]:
    """Values in [0, 1] as 8-bit gray, same shape."""
    return (film * np.float32(255) + np.float32(0.5)).astype(np.uint8)
