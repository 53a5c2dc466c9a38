"""Overlaps of a test set with what came before it, what could not be seen, and the refusal with the way out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from cmcgns.common.errors import UserError
from cmcgns.common.safe_text import write_rows

Kind = Literal["patient", "file", "picture"]
PRETRAINING = "pretraining"


@dataclass(frozen=True)
class Overlap:
    """A test image that was seen, or whose patient was.

    Attributes:
        kind: the patient, the same file byte by byte, or the same picture (re-encoded, resized, narrowly cropped).
        image: of the test set, as in its manifest.
        study: its study.
        patient: its patient.
        where: pretraining, pretraining validation (with "of RUN" for a run that the run starts from), training,
            validation.
        other_study: there.
        other_patient: there.
        correlation: of the two pictures; None for other kinds.
    """

    kind: Kind
    image: str
    study: str
    patient: str
    where: str
    other_study: str
    other_patient: str
    correlation: float | None = None

    @property
    def pretrained_on(self) -> bool:
        """Whether it was seen in pretraining, not in training or validation of the protocol."""
        return self.where.startswith(PRETRAINING)

    def __str__(self) -> str:
        """For the first few in a message."""
        if self.kind == "patient":
            return f"patient {self.patient or self.study}: {self.image} (test), {self.other_study} ({self.where})"
        how = (
            "the same file as" if self.kind == "file" else f"the same picture (correlation {self.correlation:.3f}) as"
        )
        return f"image {self.image} of {self.patient or self.study} (test): {how} {self.other_study} ({self.where})"


@dataclass(frozen=True)
class Caution:
    """What the guard could not see; never a reason to refuse.

    Attributes:
        kind: `unknown` pretraining data; `datasets` that share images, but not their ids; `pictures` that are not
            noted; `ids` that are missing.
        text: for people.
    """

    kind: Literal["unknown", "datasets", "pictures", "ids"]
    text: str


@dataclass(frozen=True)
class Leakage:
    """What was found.

    Attributes:
        protocol: its name.
        findings: everything, in the order of the test images.
        cautions: what could not be seen.
        legacy: whether the protocol's splits leak by design.
        images: of the test set.
    """

    protocol: str
    findings: list[Overlap] = field(default_factory=list)
    cautions: list[Caution] = field(default_factory=list)
    legacy: bool = False
    images: int = 0

    @property
    def refused(self) -> list[Overlap]:
        """What makes results untrue and was not meant: all but what a legacy split does by itself."""
        return [each for each in self.findings if not self.legacy or each.pretrained_on]

    @property
    def text(self) -> str:
        """What a table must say; empty if nothing was found."""
        early = [each for each in self.findings if each.pretrained_on]
        late = [each for each in self.findings if not each.pretrained_on]
        parts = [f"{_amount(early)} in pretraining"] if early else []
        by_design = ", by design of the legacy split" if self.legacy else ""
        parts += [f"{_amount(late)} in training or validation{by_design}"] if late else []
        return f"of {self.images:,} test images " + "; ".join(parts) if parts else ""


def _amount(findings: Sequence[Overlap]) -> str:
    """Images, patients and kinds of findings, in words."""
    images = len({each.image for each in findings})
    patients = len({each.patient for each in findings if each.patient})
    counts = Counter(kind for kind, _ in {(each.kind, each.image) for each in findings})
    kinds = ", ".join(f"{counts[kind]:,} by {kind}" for kind in get_args(Kind) if kind in counts)
    return f"{images:,} (of {patients:,} patients; {kinds})"


_SHOWN = 5  # findings in the message


def refuse(leakage: Leakage, allow: bool, path: Path | None = None) -> None:
    """Stop if test patients or images were seen.

    Args:
        leakage: as found.
        allow: go on all the same; tables then say so with `leakage.text`.
        path: csv file with every finding, allowed ones too; not written where there is nothing to say.

    Raises:
        UserError: names the first patients and images, the file with all of them, and the way out.
    """
    if path is not None and (leakage.findings or path.exists()):
        write_rows(path, Overlap, leakage.findings)
    refused = leakage.refused
    if not refused or allow:
        return
    first: dict[str, Overlap] = {}  # of every patient (of every image where no patient is named)
    for each in refused:
        first.setdefault(each.patient or each.image, each)
    shown = [f"  {each}" for each in first.values()][:_SHOWN]
    rest = len(refused) - len(shown)
    shown += [f"  … and {rest:,} more"] if rest else []
    listed = f"All are listed in {path}.\n" if path else ""
    raise UserError(
        f"{leakage.protocol}: the encoder or its training has seen what it is tested on. Of {leakage.images:,} test "
        f"images {_amount(refused)}:\n" + "\n".join(shown) + f"\n{listed}{_way_out(refused)}"
    )


def _way_out(refused: Sequence[Overlap]) -> str:
    ways = []
    if any(each.pretrained_on for each in refused):
        ways.append(
            "pretrain without them (`cmcgns check PRETRAINING-DATA TEST-DATA --fix` writes a cleaned manifest)"
        )
    if not all(each.pretrained_on for each in refused):
        ways.append("give the cleaned manifest of `cmcgns check DATA --fix` to --data")
    ways.append("take these images out of the test split")
    return f"Ways out: {', or '.join(ways)}. --allow-leakage goes on, and the report says so on top"
