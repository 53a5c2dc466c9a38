"""What figures were measured on: said once for all tables of a protocol."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cmcgns.evaluation.report.numbers import DASH
from cmcgns.evaluation.report.selection import Selection
from cmcgns.evaluation.results import ResultRow


@dataclass(frozen=True)
class Source:
    """The test rows of a protocol; `encoders` is empty where there is only one."""

    protocol: str
    encoders: str
    dataset: str
    split: str
    n: int
    patients: int
    seeds: str
    resamples: str
    leakage: str


def sources(selection: Selection, protocols: Iterable[str]) -> list[Source]:
    """One for every protocol and split; encoders that were judged on the same share one."""
    found: dict[tuple[str, str, str, int, int, str], list[ResultRow]] = {}
    for row in (row for name in protocols for row in _means(selection, name)):
        key = (row.protocol, row.dataset, row.split, row.n, row.patients, row.leakage)
        found.setdefault(key, []).append(row)
    listed = []
    for (protocol, dataset, split, n, patients, leakage), of in found.items():
        names = list(dict.fromkeys(selection.encoder_of(row) for row in of))
        several = len(selection.encoders) > 1
        encoders = "" if not several else "all" if len(names) == len(selection.encoders) else ", ".join(names)
        seeds = extent(row.seeds for row in of) if any(row.fraction is not None for row in of) else DASH
        resamples = extent(row.resamples for row in of)
        listed.append(Source(protocol, encoders, dataset, split, n, patients, seeds, resamples, leakage))
    return listed


def extent(values: Iterable[int]) -> str:
    """`3`, or `2 to 3`."""
    found = sorted(set(values))
    ends = [f"{value:,}" for value in (found[0], found[-1])]
    return ends[0] if len(found) == 1 else " to ".join(ends)


def _means(selection: Selection, protocol: str) -> list[ResultRow]:
    """The primary figure over all classes and everyone, which says how many rows were judged."""
    everyone = [row for row in selection.of(protocol) if not row.group]
    primary = selection.primary(protocol)
    return [row for row in everyone if row.metric == primary and not row.label] or everyone
