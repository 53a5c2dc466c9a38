"""Which findings a study has, where and how much: every random number is drawn here, before any pixel.

Places and sizes are body coordinates.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from cmcgns.phantom.anatomy import SIDES

FINDINGS: tuple[str, ...] = (
    "Effusion",
    "Pneumothorax",
    "Consolidation",
    "Nodule",
    "Cardiomegaly",
    "Edema",
    "Foreign Object",
)
"""The seven canonical labels, in the order of the label map and of ``Study.labels``."""

GRADES = ("mild", "moderate", "severe")
"""Degrees of what has no size, in rising order."""

SIZES = ("small", "moderate", "large")
"""Degrees of what has one, in rising order."""

_NORMAL_SHARE = 0.40
_CHANCES = {
    "Cardiomegaly": 0.20,
    "Edema": 0.21,
    "Effusion": 0.21,
    "Consolidation": 0.25,
    "Pneumothorax": 0.19,
    "Nodule": 0.21,
    "Foreign Object": 0.21,
}
_PAINT_ORDER = tuple(_CHANCES)
_ZONES = {"upper zone": 0.27, "mid zone": 0.46, "lower zone": 0.64, "retrocardiac region": 0.63}


@dataclass(frozen=True)
class FindingPlan:
    """One finding before rasterising; the ranges of ``amount`` and ``extent`` depend on the label."""

    label: str
    side: str
    place: str
    degree: str
    certain: bool
    kind: str = ""  # the sort of foreign object
    centre: tuple[float, float] = (0.0, 0.0)  # lateral, down
    extent: tuple[float, float] = (0.0, 0.0)  # half-axes
    amount: float = 0.0  # effusion: rise; pneumothorax: depth; edema: haze; heart: its ratio; nodule: cm
    texture: int = 0


def draw_findings(rng: np.random.Generator) -> tuple[FindingPlan, ...]:
    """Draw the findings of one study, in the order of painting; none for a normal study."""
    if rng.random() < _NORMAL_SHARE:
        return ()
    present = _draw_labels(rng)
    plans: list[FindingPlan] = []
    for label in _PAINT_ORDER:
        if label in present:
            plans += list(_PLANNERS[label](rng, plans))
    return tuple(plans)


def _draw_labels(rng: np.random.Generator) -> set[str]:
    """One to four labels; fluid overload brings edema, a big heart and effusion together."""
    chances = dict(_CHANCES)
    present: list[str] = []
    for label in _PAINT_ORDER:
        if rng.random() < chances[label]:
            present.append(label)
            if label in ("Cardiomegaly", "Edema"):
                chances["Edema"], chances["Effusion"] = 0.32, 0.30
    if not present:
        weights = np.array([_CHANCES[label] for label in _PAINT_ORDER])
        present = [str(rng.choice(_PAINT_ORDER, p=weights / weights.sum()))]
    while len(present) > 4:
        present.pop(int(rng.integers(len(present))))
    return set(present)


def _draw_grade(rng: np.random.Generator) -> int:
    return int(np.searchsorted((0.33, 0.72), rng.random()))


def _draw_side(rng: np.random.Generator) -> str:
    return "right" if rng.random() < 0.5 else "left"


def _certain(rng: np.random.Generator, grade: int) -> bool:
    return grade > 0 or bool(rng.random() < 0.62)


def _taken(plans: list[FindingPlan], label: str) -> dict[str, FindingPlan]:
    return {plan.side: plan for plan in plans if plan.label == label}


def _avoid(busy: set[str], side: str) -> str:
    """The other side where only this one is busy."""
    return (set(SIDES) - busy).pop() if busy == {side} else side


def _hidden(plans: list[FindingPlan], side: str) -> bool:
    """Whether an enlarged heart covers the lower zone of the lung on ``side``."""
    return side == "left" and bool(_taken(plans, "Cardiomegaly"))


def _plan_cardiomegaly(rng: np.random.Generator, _: list[FindingPlan]) -> Iterator[FindingPlan]:
    grade = _draw_grade(rng)
    ratio = (0.545, 0.59, 0.64)[grade] + rng.uniform(-0.01, 0.025)
    yield FindingPlan("Cardiomegaly", "none", "heart", GRADES[grade], _certain(rng, grade), amount=ratio)


def _plan_edema(rng: np.random.Generator, _: list[FindingPlan]) -> Iterator[FindingPlan]:
    grade, texture = _draw_grade(rng), int(rng.integers(2**31))
    certain = _certain(rng, grade)
    reach = ((0.13, 0.17), (0.15, 0.20), (0.19, 0.24))[grade]
    place = "diffuse" if grade == 2 else "perihilar"
    for side in SIDES:
        extent = (reach[0] * rng.uniform(0.9, 1.1), reach[1] * rng.uniform(0.9, 1.1))
        yield FindingPlan(
            "Edema", side, place, GRADES[grade], certain, centre=(0.13, 0.47), extent=extent,
            amount=(0.24, 0.38, 0.54)[grade] * rng.uniform(0.9, 1.1), texture=texture,
        )  # fmt: skip


def _plan_effusion(rng: np.random.Generator, _: list[FindingPlan]) -> Iterator[FindingPlan]:
    for side in list(SIDES) if rng.random() < 0.35 else [_draw_side(rng)]:
        grade = _draw_grade(rng)
        place = ("costophrenic angle", "base", "hemithorax")[grade]
        amount = (0.035, 0.14, 0.32)[grade] + rng.uniform(0, (0.02, 0.08, 0.12)[grade])
        certain = _certain(rng, grade)
        yield FindingPlan("Effusion", side, place, SIZES[grade], certain, amount=amount)


def _plan_consolidation(rng: np.random.Generator, plans: list[FindingPlan]) -> Iterator[FindingPlan]:
    for side in list(SIDES) if rng.random() < 0.15 else [_draw_side(rng)]:
        grade = _draw_grade(rng)
        zones = ["upper zone", "mid zone", *["lower zone"] * (0 if _hidden(plans, side) else 2)]
        fluid = _taken(plans, "Effusion").get(side)
        if fluid and fluid.degree != "small":
            zones = ["upper zone"] if fluid.degree == "large" else ["upper zone", "mid zone"]
        elif side == "left" and grade > 0:
            zones.append("retrocardiac region")
        yield _consolidation_at(rng, side, zones[int(rng.integers(len(zones)))], grade)


def _consolidation_at(rng: np.random.Generator, side: str, place: str, grade: int) -> FindingPlan:
    radius = (0.062, 0.088, 0.122)[grade] * rng.uniform(0.9, 1.12)
    lateral = rng.uniform(0.19, 0.25)
    if place == "retrocardiac region":
        radius, lateral = min(radius, 0.085), rng.uniform(0.08, 0.11)
    elif place == "upper zone":
        radius, lateral = min(radius, 0.10), rng.uniform(0.16, 0.20)
    elif side == "left" and place == "lower zone":
        lateral = rng.uniform(0.25, 0.28)  # clear of the heart, which is the retrocardiac region's
    return FindingPlan(
        "Consolidation", side, place, SIZES[grade], _certain(rng, grade),
        centre=(lateral, _ZONES[place] + rng.uniform(-0.03, 0.03)),
        extent=(radius, radius * rng.uniform(0.75, 1.1)),
        amount=(0.62, 0.76, 0.88)[grade],
        texture=int(rng.integers(2**31)),
    )  # fmt: skip


def _plan_pneumothorax(rng: np.random.Generator, plans: list[FindingPlan]) -> Iterator[FindingPlan]:
    side, grade = _draw_side(rng), _draw_grade(rng)
    busy = _taken(plans, "Consolidation").keys() | _taken(plans, "Effusion").keys()
    side = _avoid(busy, side)
    if side in busy:
        grade = 0  # so that the other finding of this lung keeps its place
    place = ("apex", "apicolateral", "hemithorax")[grade]
    depth = (0.055, 0.08, 0.135)[grade] * rng.uniform(0.92, 1.12)
    yield FindingPlan("Pneumothorax", side, place, SIZES[grade], _certain(rng, grade), amount=depth)


def _plan_nodule(rng: np.random.Generator, plans: list[FindingPlan]) -> Iterator[FindingPlan]:
    side = _avoid(_taken(plans, "Consolidation").keys() | _taken(plans, "Pneumothorax").keys(), _draw_side(rng))
    grade = _draw_grade(rng)
    fluid = _taken(plans, "Effusion").get(side)
    zones = ["upper zone", "mid zone", *["lower zone"] * (not _hidden(plans, side))]
    if fluid:
        zones = zones[: {"small": 2, "moderate": 2, "large": 1}[fluid.degree]]
    place = zones[int(rng.integers(len(zones)))]
    low, high = {"upper zone": (0.15, 0.22), "mid zone": (0.19, 0.27), "lower zone": (0.26, 0.29)}[place]
    diameter = round(float(rng.uniform(*((1.2, 1.7), (1.8, 2.4), (2.5, 3.0))[grade])), 1)
    certain, centre = _certain(rng, grade), (rng.uniform(low, high), _ZONES[place] + rng.uniform(-0.04, 0.04))
    yield FindingPlan("Nodule", side, place, SIZES[grade], certain, centre=centre, amount=diameter)


def _plan_object(rng: np.random.Generator, _: list[FindingPlan]) -> Iterator[FindingPlan]:
    kind = ("pacemaker", "central line", "endotracheal tube", "coin", "ring")[int(rng.integers(5))]
    side = "left" if kind == "pacemaker" and rng.random() < 0.8 else _draw_side(rng)
    places = {"pacemaker": "chest wall", "central line": "superior vena cava", "endotracheal tube": "trachea"}
    zone = ("upper zone", "mid zone", "lower zone")[int(rng.integers(3))]
    side = "none" if kind == "endotracheal tube" else side
    centre = (rng.uniform(0.17, 0.27), _ZONES[zone] + rng.uniform(-0.05, 0.05))
    extent = (rng.uniform(0.028, 0.036), rng.uniform(-0.02, 0.02))
    place = places.get(kind, zone)
    yield FindingPlan("Foreign Object", side, place, "none", True, kind=kind, centre=centre, extent=extent)


_PLANNERS: dict[str, Callable[[np.random.Generator, list[FindingPlan]], Iterator[FindingPlan]]] = {
    "Effusion": _plan_effusion,
    "Pneumothorax": _plan_pneumothorax,
    "Consolidation": _plan_consolidation,
    "Nodule": _plan_nodule,
    "Cardiomegaly": _plan_cardiomegaly,
    "Edema": _plan_edema,
    "Foreign Object": _plan_object,
}
