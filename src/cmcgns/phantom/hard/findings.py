"""Which findings a hard study has, where and how faint; places and sizes are body coordinates."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from cmcgns.phantom.anatomy import CENTIMETRES, SIDES
from cmcgns.phantom.findings import FINDINGS, GRADES, SIZES, FindingPlan

HARD_FINDINGS: tuple[str, ...] = (
    *(label for label in FINDINGS if label != "Foreign Object"),
    "Atelectasis",
    "Calcification",
    "Hernia",
    "Lung Cavity",
)
"""The labels of the hard level, in the order of the bits of a mask."""

_BOTH_SIDES = 0.2  # of effusions and atelectases
ZONES = {"upper zone": 0.28, "mid zone": 0.45, "lower zone": 0.61}
"""Places of what may lie anywhere in a lung, and how far down they are."""


class Slot(NamedTuple):
    """A part of a lung that one finding at most may take, so that none hides another."""

    side: str
    place: str


_Planner = Callable[[np.random.Generator, Slot, int], FindingPlan]


class Kind(NamedTuple):
    """A label of the level.

    Attributes:
        chance: of a study to have it.
        places: parts of a lung where it is drawn; none where it has but one place in the body.
        plan: draws one at a given place; grade 0 is the lesser one, 1 the other.
    """

    chance: float
    places: tuple[str, ...]
    plan: _Planner


def draw_hard_findings(rng: np.random.Generator) -> tuple[FindingPlan, ...]:
    """Draw the findings of one study, in the order of painting; none for a normal study.

    Labels are independent of each other, but for the few that find their part of the lung taken.
    """
    plans: list[FindingPlan] = []
    taken: set[Slot] = set()
    for label, (chance, places, planner) in KINDS.items():
        if rng.random() >= chance:
            continue
        slots = _draw_slots(rng, label, places, taken, enlarged=any(p.label == "Cardiomegaly" for p in plans))
        plans += [planner(rng, slot, int(rng.random() < 0.45)) for slot in slots]
        taken |= set(slots)
    return tuple(plans)


def _draw_slots(
    rng: np.random.Generator, label: str, places: Sequence[str], taken: set[Slot], enlarged: bool
) -> list[Slot]:
    """Free parts of the lungs for one label: one, or the same on both sides; both always for edema."""
    if not places:
        return [Slot("none", "")]
    if label == "Edema":
        return [Slot(side, "perihilar") for side in SIDES]
    hidden = {Slot("left", "lower zone")} if enlarged else set()  # behind the heart
    if enlarged and label == "Atelectasis":
        hidden.add(Slot("left", "base"))
    free = [Slot(side, place) for side in SIDES for place in places if Slot(side, place) not in taken | hidden]
    if not free:
        return []
    first = free[int(rng.integers(len(free)))]
    other = next((slot for slot in free if slot.place == first.place and slot.side != first.side), None)
    twice = label in ("Effusion", "Atelectasis") and rng.random() < _BOTH_SIDES
    return [first, other] if twice and other else [first]


def _plan_cardiomegaly(rng: np.random.Generator, _: Slot, grade: int) -> FindingPlan:
    ratio = (0.56, 0.60)[grade] + rng.uniform(-0.01, 0.02)
    return FindingPlan("Cardiomegaly", "none", "heart", GRADES[grade], True, amount=ratio)


def _plan_edema(rng: np.random.Generator, slot: Slot, grade: int) -> FindingPlan:
    extent = ((0.12, 0.16)[grade] * rng.uniform(0.9, 1.1), (0.15, 0.19)[grade] * rng.uniform(0.9, 1.1))
    amount, texture = (0.24, 0.36)[grade] * rng.uniform(0.9, 1.1), int(rng.integers(2**31))
    return FindingPlan(
        "Edema", slot.side, slot.place, GRADES[grade], True,
        centre=(0.13, 0.47), extent=extent, amount=amount, texture=texture,
    )  # fmt: skip


def _plan_effusion(rng: np.random.Generator, slot: Slot, grade: int) -> FindingPlan:
    amount = (0.05, 0.11)[grade] + rng.uniform(0, 0.03)
    return FindingPlan("Effusion", slot.side, slot.place, SIZES[grade], True, amount=amount)


def _plan_pneumothorax(rng: np.random.Generator, slot: Slot, grade: int) -> FindingPlan:
    depth = (0.058, 0.075)[grade] * rng.uniform(0.92, 1.12)
    return FindingPlan("Pneumothorax", slot.side, slot.place, SIZES[grade], True, amount=depth)


def _centre(rng: np.random.Generator, slot: Slot) -> tuple[float, float]:
    low, high = {"upper zone": (0.15, 0.21), "mid zone": (0.16, 0.26), "lower zone": (0.23, 0.28)}[slot.place]
    return float(rng.uniform(low, high)), ZONES[slot.place] + float(rng.uniform(-0.04, 0.04))


def _plan_consolidation(rng: np.random.Generator, slot: Slot, grade: int) -> FindingPlan:
    radius = (0.052, 0.078)[grade] * rng.uniform(0.9, 1.12)
    extent, texture = (radius, radius * rng.uniform(0.75, 1.1)), int(rng.integers(2**31))
    return FindingPlan(
        "Consolidation", slot.side, slot.place, SIZES[grade], True,
        centre=_centre(rng, slot), extent=extent, amount=rng.uniform(0.55, 0.78), texture=texture,
    )  # fmt: skip


def _round(label: str, radius: tuple[float, float], contrast: tuple[float, float]) -> _Planner:
    """Planner of a round finding: ``extent`` is radius and contrast, drawn between bounds, larger by grade."""

    def plan(rng: np.random.Generator, slot: Slot, grade: int) -> FindingPlan:
        middle = sum(radius) / 2
        size = rng.uniform(middle, radius[1]) if grade else rng.uniform(radius[0], middle)
        diameter = round(2 * size * CENTIMETRES, 1)  # as reports give it
        return FindingPlan(
            label, slot.side, slot.place, SIZES[grade], True,
            centre=_centre(rng, slot), extent=(size, rng.uniform(*contrast)), amount=diameter,
        )  # fmt: skip

    return plan


def _plan_atelectasis(rng: np.random.Generator, slot: Slot, grade: int) -> FindingPlan:
    lateral, room = (0.0, 1.0) if slot.side == "right" else (0.055, 0.7)  # the heart takes some of the left base
    centre = (lateral + rng.uniform(0.20, 0.24), rng.uniform(0.62, 0.67))
    extent = ((0.065, 0.09)[grade] * room * rng.uniform(0.9, 1.15), rng.uniform(-0.35, 0.35))  # half a length, slope
    return FindingPlan(
        "Atelectasis", slot.side, slot.place, GRADES[grade], True,
        centre=centre, extent=extent, amount=rng.uniform(0.70, 0.92),
    )  # fmt: skip


def _plan_hernia(rng: np.random.Generator, _: Slot, grade: int) -> FindingPlan:
    centre = (rng.uniform(-0.01, 0.04), rng.uniform(0.63, 0.68))
    extent = ((0.042, 0.055)[grade] * rng.uniform(0.95, 1.1), rng.uniform(0.13, 0.18))
    return FindingPlan("Hernia", "none", "retrocardiac region", SIZES[grade], True, centre=centre, extent=extent)


KINDS: dict[str, Kind] = {
    "Cardiomegaly": Kind(0.13, (), _plan_cardiomegaly),
    "Edema": Kind(0.08, ("perihilar",), _plan_edema),
    "Effusion": Kind(0.15, ("base",), _plan_effusion),
    "Pneumothorax": Kind(0.13, ("apex",), _plan_pneumothorax),
    "Atelectasis": Kind(0.16, ("base",), _plan_atelectasis),
    "Lung Cavity": Kind(0.02, ("upper zone", "mid zone"), _round("Lung Cavity", (0.038, 0.054), (0.65, 0.85))),
    "Consolidation": Kind(0.18, tuple(ZONES), _plan_consolidation),
    "Nodule": Kind(0.17, tuple(ZONES), _round("Nodule", (0.024, 0.037), (0.68, 0.90))),
    "Calcification": Kind(0.14, tuple(ZONES), _round("Calcification", (0.013, 0.018), (0.42, 0.56))),
    "Hernia": Kind(0.02, (), _plan_hernia),
}
"""All labels, those first that lie below others: the order of painting."""
