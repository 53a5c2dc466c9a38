"""What a reader must know before any figure: leakage, cautions, what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from cmcgns.common.errors import UserError
from cmcgns.evaluation.results import ENCODER, ResultRow, cells_of, read_predictions, read_protocol
from cmcgns.evaluation.task_settings.of_texts import MAP_AUROC, SIDE_ACCURACY
from cmcgns.metrics.measure import ENOUGH, LEAST
from cmcgns.objectives.objective import By, MapKind
from cmcgns.reporting.evaluation.names import extent, is_legacy, protocol_title
from cmcgns.reporting.evaluation.selection import Selection

TITLE = "Leakage: the encoder or its training has seen part of what it is tested on"
CONSEQUENCE = "Figures marked † may be too high: they also measure what was remembered."
CLEAN = "Leakage: no test image or test patient was found in pretraining, training or validation."
PARTLY = "Leakage: none was found as far as it could be looked for"


@dataclass(frozen=True)
class LeakNotice:
    """Either a banner with findings, or one line.

    Attributes:
        findings: sentences, names in backticks; empty if nothing was found.
        line: that nothing was found, and what could not be compared; empty if there is nothing to say.
    """

    findings: list[str] = field(default_factory=list)
    line: str = ""
    title: str = TITLE
    consequence: str = CONSEQUENCE


def leak_notice(selection: Selection, cautions: Mapping[str, Sequence[str]]) -> LeakNotice:
    """What a page says of leakage.

    Args:
        selection: the rows; those with leakage make a banner.
        cautions: what could not be compared, by protocol.
    """
    limits = _limits(selection, cautions)
    findings = _findings(selection)
    if findings:
        return LeakNotice(findings, f"Beyond that it is not all known: {limits}." if limits else "")
    if not selection.rows:
        return LeakNotice()
    return LeakNotice(line=f"{PARTLY}: {limits}." if limits else CLEAN)


def _findings(selection: Selection) -> list[str]:
    """One for each text, with the protocols that it holds for."""
    protocols: dict[str, dict[str, None]] = {}
    for row in selection.rows:
        if row.leakage:
            protocols.setdefault(row.leakage, {})[row.protocol] = None
    return [f"{_codes(names)}: {text}" for text, names in protocols.items()]


def _limits(selection: Selection, cautions: Mapping[str, Sequence[str]]) -> str:
    """Each caution once; with its protocols where it does not hold for all."""
    names: dict[str, list[str]] = {}
    for name in selection.protocols:
        for text in cautions.get(name, ()):
            names.setdefault(text, []).append(name)
    everywhere = len(selection.protocols)
    return "; ".join(text if len(of) == everywhere else f"{text} ({_codes(of)})" for text, of in names.items())


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


_FIXED = {
    **dict.fromkeys(("auroc", "auroc_rare", MAP_AUROC), 0.5),
    **dict.fromkeys((f"{MAP_AUROC}_{kind}" for kind in get_args(MapKind)), 0.5),
    **dict.fromkeys((f"{SIDE_ACCURACY}_{by}" for by in get_args(By)), 0.5),
    **dict.fromkeys(("cnr_similarity", "cnr_attention", "cnr_default"), 0.0),
}  # whatever the data


_BESIDE = {"ap": "ap_chance", "dice": "dice_chance"}  # figures that hold what guessing gets


@dataclass(frozen=True)
class Records:
    """By the name of a protocol.

    Attributes:
        cautions: what the leakage guard could not see.
        facts: of retrieval, with what a random ranking gets.
    """

    cautions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def without_cautions(self, rows: Iterable[ResultRow]) -> list[ResultRow]:
        """Rows whose notes do not repeat the cautions, which the page says once."""
        return [replace(row, note=_cut(row.note, self.cautions.get(row.protocol, ()))) for row in rows]

    def chance(self, selection: Selection, row: ResultRow) -> float | None:
        """What guessing gets where it is known; None elsewhere.

        AUROC 0.5 and contrast 0 by definition; pointing game and patches from the row that holds it; retrieval as
        kept.
        """
        way, _, name = row.metric.rpartition("_")
        beside = "pointing_chance" if way == "pointing" else _BESIDE.get(row.metric)
        if beside:
            found = selection.find(row.protocol, beside, fraction=row.fraction)
            return found.value if found else None
        facts = self.facts.get(row.protocol, {})
        level: float | None = facts.get("chance_r", {}).get(name, facts.get("chance_p", {}).get(way))
        return _FIXED.get(row.metric, level)


def read_records(folder: Path, rows: Iterable[ResultRow]) -> Records:
    """What an evaluation left in its folder; nothing where the folder is of something else."""
    if not (folder / ENCODER).is_file():
        return Records()
    cautions, facts = dict[str, Sequence[str]](), dict[str, Mapping[str, Any]]()
    for name, task in {row.protocol: row.task for row in rows}.items():
        try:
            cautions[name] = read_protocol(folder, name).get("cautions", [])
            if task == "retrieval":
                facts[name] = read_predictions(folder, name, cells_of(folder, name)[0]).facts
        except UserError:  # damaged: listed among the failures, and no reason to lose the page
            continue
    return Records(cautions, facts)


def _cut(note: str, cautions: Sequence[str]) -> str:
    """A note without sentences that it was joined from."""
    for caution in cautions:
        found = next((part for part in (f"{caution}. ", f". {caution}", caution) if part in note), "")
        note = note.replace(found, "", 1)
    return note


FEW_PATIENTS = 30
FEW_CHEXPERT_IMAGES = 250


def statements(selection: Selection) -> list[str]:
    """Sentences that hold for these rows; the general ones first."""
    if not selection.rows:
        return ["There is no figure to read: nothing was finished."]
    found = [*_general(selection), *_small_tests(selection), *_scarce(selection), *_chexpert(selection)]
    if any(is_legacy(name) for name in selection.protocols):
        found.append(
            "Published figures stand beside legacy protocols only. They are copied, other hands measured them, they "
            "have no interval, and copied tables disagree by several points: orientation, not a comparison."
        )
    return found


def _general(selection: Selection) -> list[str]:
    resamples = [row.resamples for row in selection.rows if row.resamples]
    drawn = f" ({extent(resamples)} resamples)" if resamples else ""
    found = [
        "Intervals are 95 % intervals from a bootstrap over test patients"
        f"{drawn}: they show the luck of who is in the test set."
    ]
    if any(row.sd is not None for row in selection.rows):
        found.append(
            "sd is the standard deviation over seeds: the luck of which labels were drawn and of training. The "
            "value is then the mean over seeds."
        )
    found.append(
        "Whether two encoders differ is not seen from two intervals, overlapping or not, but from the paired "
        "differences of `cmcgns compare`. No figure here is set off as the best."
    )
    return found


def few_patients(names: Iterable[str], where: str = "test patients") -> list[str]:
    """A warning about tests or subgroups that are small; empty where there are none."""
    shown = ", ".join(names)
    return [f"Fewer than {FEW_PATIENTS} {where}: {shown}. Their intervals are too narrow."] if shown else []


def _small_tests(selection: Selection) -> list[str]:
    rows = [row for row in selection.rows if not row.label and row.value is not None and row.patients < FEW_PATIENTS]
    few = {row.protocol: row.patients for row in rows if not row.group}
    counts: dict[str, list[int]] = {}
    for row in rows:
        if row.group:
            counts.setdefault(row.group, []).append(row.patients)
    tests = (f"{protocol_title(name, selection.about)} ({count})" for name, count in few.items())
    groups = (f"{group} ({extent(found)})" for group, found in counts.items())
    return [*few_patients(tests), *few_patients(groups, "patients in subgroups")]


def _scarce(selection: Selection) -> list[str]:
    """Primary figures whose scarcest kind of patients (those with the finding, with a box …) is too small."""
    rows = [row for row in selection.rows if row.primary and row.seed is None and 0 < row.support < ENOUGH]
    few = {f"{protocol_title(row.protocol, selection.about)}{_in(row.group)} ({row.support})": None for row in rows}
    if not few:
        return []
    return [
        f"Figures that rest on fewer than {ENOUGH} patients of a kind (with the finding, without it, with a box or "
        f"mask): {', '.join(few)}. Below {ENOUGH} an interval is too narrow, below {LEAST} there is none."
    ]


def _in(group: str) -> str:
    return f", {group}" if group else ""


def _chexpert(selection: Selection) -> list[str]:
    rows = [row for row in selection.rows if not row.label and not row.group and 0 < row.n <= FEW_CHEXPERT_IMAGES]
    counts = sorted({row.n for row in rows if "chexpert" in f"{row.protocol} {row.dataset}".lower()})
    if not counts:
        return []
    images = " or ".join(str(count) for count in counts)
    return [
        f"With {images} CheXpert test images the mean AUROC is uncertain by about ±3 points, which is more than most "
        "published differences."
    ]
