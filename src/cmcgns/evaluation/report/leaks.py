"""What the leakage guard found, as a reader must see it before any figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cmcgns.evaluation.report.selection import Selection

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
    """One for each encoder and text, with the protocols that it holds for."""
    protocols: dict[tuple[str, str], dict[str, None]] = {}
    for row in selection.rows:
        if row.leakage:
            protocols.setdefault((selection.encoder_of(row), row.leakage), {})[row.protocol] = None
    several = len(selection.encoders) > 1
    return [
        f"{', '.join(f'`{name}`' for name in names)}{f', {encoder}' if several else ''}: {text}"
        for (encoder, text), names in protocols.items()
    ]


def _limits(selection: Selection, cautions: Mapping[str, Sequence[str]]) -> str:
    """Each caution once; with its protocols where it does not hold for all."""
    names: dict[str, list[str]] = {}
    for name in selection.protocols:
        for text in cautions.get(name, ()):
            names.setdefault(text, []).append(name)
    everywhere = len(selection.protocols)
    return "; ".join(
        text if len(of) == everywhere else f"{text} ({', '.join(f'`{name}`' for name in of)})"
        for text, of in names.items()
    )
