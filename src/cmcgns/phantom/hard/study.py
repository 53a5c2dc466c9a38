"""One hard study from a seed and an index: another series than the plain one, of other patients."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmcgns.phantom.findings import FindingPlan
from cmcgns.phantom.hard.distractors import add_to_body, add_to_film, vary_anatomy
from cmcgns.phantom.hard.findings import HARD_FINDINGS, draw_hard_findings
from cmcgns.phantom.hard.language import compose_hard_report
from cmcgns.phantom.hard.painting import paint_hard_finding
from cmcgns.phantom.study import (
    DrawnFinding,
    Study,
    StudyPlan,
    check_side,
    develop,
    draw_patient,
    drawn_finding,
    paint_chest,
    to_gray,
)

_HARD = 100  # keeps the random streams apart from those of plain studies
_PATIENT, _POSE, _TRUTH, _REPORT, _GRAIN, _OVER = range(_HARD, _HARD + 6)


@dataclass(frozen=True)
class HardFinding(DrawnFinding):
    """A finding as drawn; ``stated`` says whether the report speaks of it, as it does of two in three."""

    stated: bool


@dataclass(frozen=True)
class HardPlan(StudyPlan):
    """Everything about a hard study except its pixels; ``stated`` are the findings that the report speaks of."""

    stated: frozenset[FindingPlan]


def make_hard_study(seed: int, index: int, size: int = 128, *, held_out: bool = False) -> Study:
    """Make the hard study number ``index`` of the endless series that ``seed`` names.

    Args:
        seed: names the series; not negative.
        index: number of the study in the series; not negative.
        size: height and width of the image in pixels, at least 32.
        held_out: as for :func:`plan_hard_study`.

    Returns:
        A study whose ``mask`` is (H, W) uint16: bit ``HARD_FINDINGS.index(label)`` is set inside that finding.

    Raises:
        UserError: if one of the numbers is out of range.
    """
    return study_of(plan_hard_study(seed, index, held_out=held_out), size)


def study_of(plan: HardPlan, size: int) -> Study:
    """A planned study with its picture, as :func:`make_hard_study` gives it."""
    check_side(size)
    return plan.with_picture(*render_hard(plan, size), HARD_FINDINGS)


def plan_hard_study(seed: int, index: int, *, held_out: bool = False) -> HardPlan:
    """Draw patient, anatomy, findings and report of a study without drawing its image.

    Args:
        seed: names the series; not negative.
        index: number of the study in the series; not negative.
        held_out: word half of the statements as in no training study. What is drawn before the words stays.

    Raises:
        UserError: if one of the numbers is out of range.
    """
    patient = draw_patient(seed, index, _PATIENT, _POSE)
    findings = draw_hard_findings(np.random.default_rng((seed, _TRUTH, index)))
    text, impression, stated = compose_hard_report(np.random.default_rng((seed, _REPORT, index)), findings, held_out)
    return HardPlan(
        f"phantom-hard-{seed}-{index:06d}", f"phantom-hard-{seed}-{patient.name}", patient.sex, patient.age,
        patient.view, vary_anatomy(patient.anatomy, patient.pose), findings, text, impression,
        (seed, _GRAIN, index), stated,
    )  # fmt: skip


def render_hard(plan: HardPlan, size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint16], list[HardFinding]]:
    """Draw a plan: image (size, size), bits of the findings (size, size) and the findings with their boxes."""
    chest, regions = paint_chest(plan, size, paint_hard_finding)
    mask = np.zeros((size, size), np.uint16)
    findings = []
    for item, region in zip(plan.findings, regions, strict=True):
        mask |= region.astype(np.uint16) << np.uint16(HARD_FINDINGS.index(item.label))
        findings.append(HardFinding(**vars(drawn_finding(item, region)), stated=item in plan.stated))
    over = np.random.default_rng((*plan.grain, _OVER))
    add_to_body(chest, over)
    return to_gray(add_to_film(develop(chest, np.random.default_rng(plan.grain)), over)), mask, findings
