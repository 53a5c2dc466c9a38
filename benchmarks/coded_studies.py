"""Hard studies under real reports: findings from a report's codes, the report's own text, a drawn picture."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from cmcgns.phantom.anatomy import SIDES
from cmcgns.phantom.findings import FindingPlan
from cmcgns.phantom.hard.findings import KINDS, Slot
from cmcgns.phantom.hard.study import plan_hard_study, study_of
from cmcgns.phantom.study import Study

_CODED = 110  # a random stream that no other level has
NORMAL = "normal"
_CLEAR = 0.29  # from the midline: where the lower left lung is seen beside an enlarged heart
_ZONE = {"base": "lower zone", "apex": "upper zone"}  # where the only place of a finding is


class CodedFinding(NamedTuple):
    """A finding as coded; what the code leaves open is empty, or None."""

    label: str
    sides: tuple[str, ...]
    place: str
    grade: int | None


class CodedReport(NamedTuple):
    """What a report's codes say: findings that can be drawn, and the codes that cannot."""

    findings: tuple[CodedFinding, ...]
    other: tuple[str, ...]
    normal: bool

    @property
    def covered(self) -> bool:
        """Whether a picture can be drawn: the report is coded normal, or has a finding of the level."""
        return bool(self.findings) or (self.normal and not self.other)


def code_table() -> dict[str, Any]:
    """The table of codes, ``codes.yaml`` beside this file."""
    table: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("codes.yaml").read_text("utf-8"))
    return table


def read_codes(codes: str, table: Mapping[str, Any]) -> CodedReport:
    """Codes of one report, such as ``Cardiomegaly/mild; Nodule/lung/upper lobe/left``, read by a table.

    Args:
        codes: parted by semicolons.
        table: as ``codes.yaml``: findings, sides, places, grades and silent words.
    """
    parts = [part for code in codes.split(";") if (part := code.strip())]
    stated = [part for part in parts if part.lower() != NORMAL]
    read = {code: _read(code.split("/"), table) for code in stated}
    findings = dict.fromkeys(found for found in read.values() if found)
    return CodedReport(tuple(findings), tuple(code for code in stated if not read[code]), len(stated) < len(parts))


def _read(words: Sequence[str], table: Mapping[str, Any]) -> CodedFinding | None:
    head, *rest = (word.strip() for word in words)
    kind = table["findings"].get(head)
    if kind is None:
        return None
    needed = [kind["needs"]] if "needs" in kind else []
    known = {*needed, *kind.get("also", ()), *table["silent"], *table["sides"], *table["places"], *table["grades"]}
    if not set(needed) <= set(rest) <= known:
        return None
    sides = {side for word in rest for side in table["sides"].get(word, ())}
    zones = {table["places"][word] for word in rest if word in table["places"]}
    grades = [table["grades"][word] for word in rest if word in table["grades"]]
    places = KINDS[kind["label"]].places
    fixed = _ZONE.get(places[0]) if len(places) == 1 else None
    if len(zones) > 1 or (fixed and not zones <= {fixed}):
        return None
    ordered = tuple(side for side in SIDES if side in sides)
    return CodedFinding(kind["label"], ordered, next(iter(zones), ""), max(grades, default=None))


def make_coded_study(
    seed: int, index: int, name: str, texts: tuple[str, str], report: CodedReport, size: int
) -> Study:
    """Draw the picture of a coded report.

    Args:
        seed: names the series.
        index: of the study whose patient, pose and exposure the picture takes.
        name: of the report; becomes study and patient.
        texts: the report's findings and impression sections.
        report: what its codes say.
        size: height and width of the image in pixels.

    Returns:
        A study of the hard level whose report is ``texts``.

    Raises:
        UserError: if one of the numbers is out of range.
    """
    plan = plan_hard_study(seed, index)
    findings = tuple(draw_coded_findings(np.random.default_rng((seed, _CODED, index)), report.findings))
    identity = f"phantom-coded-{name}"
    plan = replace(
        plan, study_id=identity, patient_id=identity, findings=findings, findings_text=texts[0], impression=texts[1],
        stated=frozenset(findings),
    )  # fmt: skip
    return study_of(plan, size)


def draw_coded_findings(rng: np.random.Generator, coded: Sequence[CodedFinding]) -> Iterator[FindingPlan]:
    """Draw coded findings in the order of painting; where the codes leave a place open, a free one is taken."""
    taken: set[Slot] = set()
    enlarged = any(finding.label == "Cardiomegaly" for finding in coded)
    for label in KINDS:
        done: set[Slot] = set()
        for finding in (finding for finding in coded if finding.label == label):
            grade = int(rng.random() < 0.45) if finding.grade is None else finding.grade
            for slot in _slots(rng, finding, taken):
                if slot not in done:  # two codes may say the same
                    plan = KINDS[label].plan(rng, slot, grade)
                    yield _beside_heart(plan) if enlarged else plan
                done.add(slot)
        taken |= done


def _beside_heart(plan: FindingPlan) -> FindingPlan:
    """The finding where an enlarged heart does not hide it."""
    hidden = plan.side == "left" and plan.place in ("lower zone", "base") and 0 < plan.centre[0] < _CLEAR
    return replace(plan, centre=(_CLEAR, plan.centre[1])) if hidden else plan


def _slots(rng: np.random.Generator, finding: CodedFinding, taken: set[Slot]) -> list[Slot]:
    places = KINDS[finding.label].places
    if not places:
        return [Slot("none", "")]
    both = tuple(SIDES)
    if finding.label == "Edema":
        return [Slot(side, places[0]) for side in both]
    choice = [finding.place] if finding.place and len(places) > 1 else list(places)
    free = [Slot(side, place) for side in finding.sides or both for place in choice]
    free = [slot for slot in free if slot not in taken] or free
    first = free[int(rng.integers(len(free)))]
    return [Slot(side, first.place) for side in finding.sides] if len(finding.sides) > 1 else [first]
