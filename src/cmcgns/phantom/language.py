"""Reports in the language of radiology, true to a list of findings.

Most sentences of real reports are normal ones from a small stock, repeated verbatim; so it is here.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cmcgns.common.packaged import packaged_yaml
from cmcgns.phantom.findings import FindingPlan

WORDING: dict[str, Any] = packaged_yaml("cmcgns.phantom", "wording.yaml")
_MOST_SENTENCES = 9
IN_LUNG = frozenset({"Consolidation", "Edema", "Nodule", "Effusion", "Pneumothorax"})
_ADJECTIVES = {"apex": "apical", "hemithorax": "apicobasal"}


def compose_report(rng: np.random.Generator, plans: Sequence[FindingPlan]) -> tuple[str, str]:
    """Write the findings and impression sections for ``plans``; every finding is mentioned at least once."""
    groups = _group(plans)
    order = [groups[int(i)] for i in rng.permutation(len(groups))]
    # Some findings appear in one section only, as in real reports.
    skipped = int(rng.integers(len(order))) if len(order) > 1 and rng.random() < 0.2 else -1
    positive = [_describe(rng, group) for i, group in enumerate(order) if i != skipped]
    present = frozenset(plan.label for plan in plans)
    target = int(rng.integers(3, 6)) if order else int(rng.integers(3, 7))
    normal = _sided_normal(rng, plans) if len(positive) < 3 else []
    if len(positive) < _MOST_SENTENCES // 2:
        normal += _draw_normal(rng, present, max(1, target - len(positive) - len(normal)))
    lines = [*positive, *normal]
    if rng.random() < 0.5:
        lines = [lines[int(i)] for i in rng.permutation(len(lines))]
    room = min(4, _MOST_SENTENCES - len(lines))
    return " ".join(lines), " ".join(_impression(rng, order, present, skipped, room))


def _group(plans: Sequence[FindingPlan]) -> list[list[FindingPlan]]:
    """Group what one sentence can say: both sides of a finding when place and degree agree."""
    groups: dict[tuple[str, ...], list[FindingPlan]] = {}
    for plan in plans:
        groups.setdefault((plan.label, plan.place, plan.degree, plan.kind, str(plan.certain)), []).append(plan)
    return list(groups.values())


def _describe(rng: np.random.Generator, group: Sequence[FindingPlan]) -> str:
    plan = group[0]
    if plan.kind:
        wordings = WORDING["objects"][plan.kind]
    else:
        labels = WORDING["bilateral" if len(group) > 1 else "positive"]
        wordings = labels[plan.label]["certain" if plan.certain else "uncertain"]
    place = _ADJECTIVES.get(plan.place, plan.place) if plan.label == "Pneumothorax" else plan.place
    text = pick(rng, wordings).format(side=plan.side, place=place, degree=plan.degree, size=plan.amount)
    return text[0].upper() + text[1:]


def pick(rng: np.random.Generator, texts: Sequence[str]) -> str:
    """One of ``texts``, all as likely."""
    return texts[int(rng.integers(len(texts)))]


def _draw_normal(rng: np.random.Generator, present: frozenset[str], count: int) -> list[str]:
    """Up to ``count`` true normal sentences, never denying the same label twice."""
    lines: list[str] = []
    denied: set[str] = set()
    normal = list(WORDING["normal"].items())
    for i in rng.permutation(len(normal)):
        text, denies = normal[int(i)]
        if not (present | denied).isdisjoint(denies):
            continue
        lines.append(text)
        denied |= set(denies)
        if len(lines) == count:
            break
    return lines


def _sided_normal(rng: np.random.Generator, plans: Sequence[FindingPlan]) -> list[str]:
    """Now and then, say of the healthy side what the other side does not have."""
    busy = {plan.side for plan in plans if plan.label in IN_LUNG}
    if len(busy) != 1 or rng.random() > 0.35:
        return []
    healthy = "left" if busy == {"right"} else "right"
    kind = "Effusion" if "Effusion" in {plan.label for plan in plans} else "lung"
    return [pick(rng, WORDING["sided"][kind]).format(side=healthy)]


def _impression(
    rng: np.random.Generator,
    order: Sequence[Sequence[FindingPlan]],
    present: frozenset[str],
    skipped: int,
    room: int,
) -> list[str]:
    """At most ``room`` sentences; the finding left out of the other section is always among them."""
    if present <= {"Foreign Object"}:
        normal = WORDING["normal_impressions"][: 2 if present else None]
        return [*(_describe(rng, group) for group in order), pick(rng, normal)]
    most = len(order) - 1 if len(order) > 2 and rng.random() < 0.4 else len(order)
    first = [skipped] if skipped >= 0 else []
    keep = first + [i for i in range(len(order)) if i != skipped]
    lines = [_describe(rng, order[i]) for i in keep[: min(most, room)]]
    rest = [text for text, denies in WORDING["rest_impressions"].items() if present.isdisjoint(denies)]
    if len(lines) < min(3, room) and rest and rng.random() < 0.35:
        lines.append(pick(rng, rest))
    return lines
