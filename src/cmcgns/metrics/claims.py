"""What sentences claim of findings, as arrays: what follows from a report, what contradicts it, what differs."""

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]
_RIGHT, _LEFT, _ANYWHERE = 0, 1, 2


class Told(Protocol):
    """What one sentence says, such as :class:`cmcgns.phantom.SentenceTruth`."""

    @property
    def stated(self) -> Set[str]:
        """Findings that are there."""

    @property
    def denied(self) -> Set[str]:
        """Findings that are not there."""

    @property
    def side(self) -> str:
        """Of all of them: right, left, both or none."""

    @property
    def degree(self) -> str:
        """Of what is stated; empty if none is given."""


@dataclass(frozen=True)
class Claims:
    """Claims of C sentences, or of C reports, about F findings.

    Attributes:
        stated: (C, F, 3) that a finding is on the right, on the left, or anywhere at all.
        denied: (C, F, 3) that it is not on the right, not on the left, or nowhere at all.
        degree: (C, F, G) that it is there in one of G degrees.
    """

    stated: Flags
    denied: Flags
    degree: Flags

    @classmethod
    def of(cls, sentences: Sequence[Told]) -> "Claims":
        """Claims of sentences. One that leaves the side open states a finding anywhere, and denies it on both."""
        findings = sorted(set().union(*(each.stated | each.denied for each in sentences)))
        degrees = sorted({each.degree for each in sentences} - {""})
        stated = np.zeros((len(sentences), len(findings), 3), dtype=bool)
        denied, degree = np.zeros_like(stated), np.zeros((len(sentences), len(findings), len(degrees)), dtype=bool)
        for number, each in enumerate(sentences):
            here, not_here = ([findings.index(label) for label in labels] for labels in (each.stated, each.denied))
            right, left, open_ = each.side in ("right", "both"), each.side in ("left", "both"), each.side == "none"
            stated[number, here] = right, left, True
            denied[number, not_here] = right or open_, left or open_, (right and left) or open_
            if each.degree:
                degree[number, here, degrees.index(each.degree)] = True
        return cls(stated, denied, degree)

    def together(self, holds: Flags) -> "Claims":
        """Of reports: what any of their sentences claims.

        Args:
            holds: (R, C) whether a report holds a sentence.
        """
        stated, denied, degree = (_any_of(holds, each) for each in (self.stated, self.denied, self.degree))
        denied[:, :, _ANYWHERE] |= denied[:, :, _RIGHT] & denied[:, :, _LEFT]
        return Claims(stated, denied, degree)

    @property
    def speak(self) -> Flags:
        """(C, F) whether of a finding at all."""
        return np.asarray(self.stated.any(2) | self.denied.any(2))

    def follow_from(self, reports: "Claims") -> Flags:
        """(C, R) whether a report says all that a sentence claims of findings and sides; of degrees nothing."""
        missing = meet(self.stated, ~reports.stated) | meet(self.denied, ~reports.denied)
        return np.asarray(~missing & (self.speak.sum(1) > 0)[:, None])

    def contradict(self, others: "Claims") -> Flags:
        """(C, R) whether one states what the other denies, on the same side."""
        return meet(self.stated, others.denied) | meet(self.denied, others.stated)

    def share_finding(self, others: "Claims") -> Flags:
        """(C, R) whether both speak of one finding."""
        return meet(self.speak, others.speak)

    def differ(self, others: "Claims") -> Flags:
        """(C, R) whether two sentences speak of one finding, and contradict, or name other sides or other degrees."""
        found = self.contradict(others)
        for here, there in ((_RIGHT, _LEFT), (_LEFT, _RIGHT)):
            found |= meet(self.stated[..., here], _only(others.stated, there))
            found |= meet(_only(self.stated, here), others.stated[..., there])
            found |= meet(_only(self.denied, here), _only(others.denied, there))  # an open denial names no side
        other_degrees = others.degree.any(2, keepdims=True) & ~others.degree
        return found | meet(self.degree, other_degrees)


def _only(claims: Flags, side: int) -> Flags:
    """(C, F) that a side is named and the other is not."""
    return np.asarray(claims[..., side] & ~claims[..., 1 - side])


def _any_of(holds: Flags, claims: Flags) -> Flags:
    """(R, …) whether any of the held rows of (C, …) is true."""
    return meet(holds, _flat(claims).T).reshape(len(holds), *claims.shape[1:])


def meet(first: Flags, second: Flags) -> Flags:
    """(C, R) whether any entry of two rows is true in both, of (C, …) and (R, …)."""
    mine, theirs = (_flat(each).astype(np.float32) for each in (first, second))
    return np.asarray(mine @ theirs.T > 0)


def _flat(claims: Flags) -> Flags:
    return claims.reshape(len(claims), math.prod(claims.shape[1:]))
