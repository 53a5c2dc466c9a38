"""Reports of hard studies: nothing that they say is false, and much that is there goes unsaid."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cmcgns.common.packaged import packaged_yaml
from cmcgns.phantom.anatomy import SIDES
from cmcgns.phantom.findings import FindingPlan
from cmcgns.phantom.hard.findings import HARD_FINDINGS, ZONES
from cmcgns.phantom.language import pick

HARD_WORDING: dict[str, Any] = packaged_yaml("cmcgns.phantom.hard", "wording.yaml")

_OMITTED = 0.32  # of the findings
_HELD_OUT = 0.5  # of the statements in test studies


def compose_hard_report(
    rng: np.random.Generator, plans: Sequence[FindingPlan], held_out: bool
) -> tuple[str, str, frozenset[FindingPlan]]:
    """Write findings and impression, and say which of ``plans`` they state.

    Args:
        rng: draws what is said.
        plans: all that was drawn.
        held_out: half of the statements are worded as in no other split: for test studies.
    """
    groups = _group(plans)
    stated = [groups[int(i)] for i in rng.permutation(len(groups)) if rng.random() >= _OMITTED]
    lines = [_state(rng, group[0], held_out) for group in stated]
    again = [_state(rng, group[0], held_out) for group in stated[: int(rng.integers(1, 3))]]
    lines += _deny(rng, plans, int(rng.integers(2, 5)))
    lines += [pick(rng, HARD_WORDING["neutral"])] * (rng.random() < 0.6)
    lines = list(dict.fromkeys(lines[int(i)] for i in rng.permutation(len(lines))))
    impression = again or _deny(rng, plans, 1)
    return " ".join(lines), " ".join(impression), frozenset(plan for group in stated for plan in group)


def _group(plans: Sequence[FindingPlan]) -> list[list[FindingPlan]]:
    """What is said or left out as one: edema of both lungs, any other finding alone."""
    edema = [plan for plan in plans if plan.label == "Edema"]
    return [[plan] for plan in plans if plan.label != "Edema"] + [edema] * bool(edema)


def _state(rng: np.random.Generator, plan: FindingPlan, held_out: bool) -> str:
    kind = "held_out" if held_out and rng.random() < _HELD_OUT else "stated"
    sentence = pick(rng, HARD_WORDING[plan.label][kind])
    return _fill(sentence, side=plan.side, place=plan.place, degree=plan.degree, size=plan.amount)


def _fill(sentence: str, **values: object) -> str:
    text = sentence.format(**values)
    return text[0].upper() + text[1:]


def _deny(rng: np.random.Generator, plans: Sequence[FindingPlan], count: int) -> list[str]:
    """Up to ``count`` true denials, each of other findings; often first of one that is there on the other side."""
    present = [label for label in HARD_FINDINGS if any(plan.label == label and plan.side in SIDES for plan in plans)]
    near = [pick(rng, present)] if present and rng.random() < 0.5 else []
    others = (HARD_FINDINGS[int(i)] for i in rng.permutation(len(HARD_FINDINGS)))
    joint: Mapping[str, list[str]] = HARD_WORDING["joint"]
    lines: list[str] = []
    said: set[str] = set()
    for label in (*near, *others):
        several = [text for text, labels in joint.items() if label in labels]
        text = pick(rng, several if several and rng.random() < 0.25 else HARD_WORDING[label]["denied"])
        denied, side = set(joint.get(text, [label])), "right" if rng.random() < 0.5 else "left"
        if said & denied or not _absent(plans, denied, side if "{side}" in text else ""):
            continue
        lines.append(_fill(text, side=side, place=pick(rng, tuple(ZONES))))
        said |= denied
        if len(lines) == count:
            break
    return lines


def _absent(plans: Sequence[FindingPlan], labels: set[str], side: str) -> bool:
    """Whether none of ``labels`` is there, on ``side`` if one is given."""
    return not any(plan.label in labels and side in ("", plan.side) for plan in plans)
