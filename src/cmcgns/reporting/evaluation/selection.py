"""Which rows of the results a table shows, and what they were measured on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

from cmcgns.evaluation.protocols import EvaluationProtocol
from cmcgns.evaluation.results import ResultRow
from cmcgns.reporting.evaluation.names import DASH, extent, is_legacy, is_number, paper_order

Key = tuple[str, str, str, str, float | None]


class Selection:
    """Result rows, found by what they are about.

    Args:
        rows: of one encoder and any number of protocols; rows of single seeds and means over seeds.
        protocols: by the name in the rows.
        failures: protocol, cell and message of what went wrong.

    Attributes:
        rows: all of them.
        protocols: names in the order of the paper.
        encoder: its name; empty without rows.
    """

    def __init__(
        self,
        rows: Sequence[ResultRow],
        protocols: Mapping[str, EvaluationProtocol],
        failures: Iterable[tuple[str, str, str]] = (),
    ) -> None:
        self.rows, self.about = tuple(rows), protocols
        self._failed = {(protocol, cell.partition("-percent")[0]) for protocol, cell, _ in failures}
        tasks = {row.protocol: row.task for row in rows}
        self.tasks = tasks
        self.protocols = sorted(tasks, key=lambda name: paper_order(name, tasks[name]))
        self.encoder = rows[0].encoder if rows else ""
        means = (row for row in rows if row.seed is None)
        self._shown: dict[Key, ResultRow] = {
            (row.protocol, row.metric, row.label, row.group, row.fraction): row for row in means
        }

    def find(
        self,
        protocol: str,
        metric: str,
        label: str = "",
        group: str = "",
        fraction: float | None = None,
    ) -> ResultRow | None:
        """The row that a table shows."""
        return self._shown.get((protocol, metric, label, group, fraction))

    def of(self, protocol: str) -> list[ResultRow]:
        """What tables can show of a protocol: means over seeds, no single seeds."""
        return [row for key, row in self._shown.items() if key[0] == protocol]

    def primary(self, protocol: str) -> str:
        """The metric that stands for the protocol."""
        rows = self.of(protocol)
        wanted = getattr(self.about.get(protocol), "primary", "")
        chosen = [row.metric for row in rows if row.primary] or [row.metric for row in rows if row.metric == wanted]
        return chosen[0] if chosen else rows[0].metric

    def metrics(self, protocol: str) -> list[str]:
        """The primary one first, then in the order of the rows."""
        return list(dict.fromkeys([self.primary(protocol), *(row.metric for row in self.of(protocol))]))

    def fractions(self, protocol: str) -> list[float | None]:
        """Rising; [None] for what learns nothing."""
        found = {row.fraction for row in self.of(protocol)}
        return sorted(found, key=lambda fraction: -1.0 if fraction is None else fraction)

    def learns(self, protocol: str) -> bool:
        """Whether there are fractions."""
        return any(row.fraction is not None for row in self.of(protocol))

    def labels(self, protocol: str, metric: str) -> list[str]:
        """Classes with a figure of their own; empty where a single class repeats the mean."""
        rows = [row for row in self.of(protocol) if row.label and row.metric == metric and not row.group]
        found = list(dict.fromkeys(row.label for row in rows))
        return [] if len(found) == 1 and self._repeats_mean(protocol, metric) else found

    def groups(self, protocol: str, metric: str) -> list[str]:
        """Subgroups with a figure of the primary metric over all classes."""
        rows = [row for row in self.of(protocol) if row.group and row.metric == metric and not row.label]
        return list(dict.fromkeys(row.group for row in rows))

    def groups_with_figures(self, protocol: str) -> list[str]:
        """Those of :meth:`groups` that have a value at the largest fraction."""
        metric, fraction = self.primary(protocol), self.fractions(protocol)[-1]
        found = {row.group for row in self.of(protocol) if row.fraction == fraction and row.metric == metric
                 and not row.label and is_number(row.value)}  # fmt: skip
        return [group for group in self.groups(protocol, metric) if group in found]

    def published(self, protocol: str) -> Mapping[str, Sequence[float | None]]:
        """Published figures by model, in per cent at 1, 10 and 100 % of the labels; none but for legacy protocols."""
        known = protocol in self.about and is_legacy(protocol)
        return self.about[protocol].anchors if known else {}

    def expected_seeds(self, protocol: str, fraction: float | None) -> int:
        """How many the protocol asks for; 0 where it is not known, or nothing is learnt."""
        return self.about[protocol].seeds if protocol in self.about and fraction is not None else 0

    def why_missing(self, protocol: str, fraction: float | None) -> str:
        """Why there is no row: it failed, or nobody asked for it."""
        cells = {"", "all" if fraction is None else f"{fraction:g}"}
        failed = any(
            (name, cell) in self._failed for cell in cells for name in (protocol, protocol.partition("@")[0])
        )
        return "failed" if failed else "not run"

    def _repeats_mean(self, protocol: str, metric: str) -> bool:
        rows = [row for row in self.of(protocol) if row.metric == metric and not row.group]
        means = {row.fraction: row.value for row in rows if not row.label}
        return all(means.get(row.fraction, row) == row.value for row in rows if row.label)


def sources(selection: Selection, protocols: Iterable[str]) -> list[dict[str, Any]]:
    """What protocols were measured on: a line for each of their splits.

    Returns:
        Fields of :class:`ResultRow`, with `seeds` and `resamples` as text.
    """
    shared = ("protocol", "dataset", "split", "n", "patients", "leakage")
    found: dict[tuple[Any, ...], list[ResultRow]] = {}
    for row in (row for name in protocols for row in _means(selection, name)):
        found.setdefault(attrgetter(*shared)(row), []).append(row)
    listed = []
    for key, of in found.items():
        texts = {
            "seeds": extent(row.seeds for row in of) if any(row.fraction is not None for row in of) else DASH,
            "resamples": extent(row.resamples for row in of),
        }
        listed.append(dict(zip(shared, key, strict=True)) | texts)
    return listed


def _means(selection: Selection, protocol: str) -> list[ResultRow]:
    """The primary figure over all classes and everyone, which says how many rows were judged."""
    everyone = [row for row in selection.of(protocol) if not row.group]
    primary = selection.primary(protocol)
    return [row for row in everyone if row.metric == primary and not row.label] or everyone
