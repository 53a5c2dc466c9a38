"""What a call of `cmcgns evaluate` asks for, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from cmcgns.evaluation.protocols import EvaluationProtocol


@dataclass(frozen=True)
class EvaluateOptions:
    """What the user asked for.

    Attributes:
        fractions: per cent of the training patients, in place of the protocols'.
        seeds: how many, in place of the protocols'.
        allow_leakage: go on although test patients or images were seen in training; said in every row.
        device: where to compute.
    """

    fractions: tuple[float, ...] = ()
    seeds: int | None = None
    allow_leakage: bool = False
    device: str = "cpu"


@dataclass
class Outcome:
    """What became of a call.

    Attributes:
        protocols: by the name in tables.
        leakage: text by the same name, where leakage was allowed.
        failures: protocol, cell and message of what went wrong.
        skipped: protocols (between commas) and the reason that they share.
    """

    protocols: dict[str, EvaluationProtocol] = field(default_factory=dict)
    leakage: dict[str, str] = field(default_factory=dict)
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def skip(self, name: str, reason: str) -> None:
        """A protocol cannot be done; those of one reason share a line, which `--protocol all` would repeat."""
        reasons = [known for _, known in self.skipped]
        if reason in reasons:
            place = reasons.index(reason)
            self.skipped[place] = (f"{self.skipped[place][0]}, {name}", reason)
        else:
            self.skipped.append((name, reason))
