"""What the leakage guard found, and could not see, in words; and the refusal with the way out."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from typing import Literal

from cmcgns.common.errors import UserError
from cmcgns.common.files import write_text

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
        kind: `unknown` pretraining data; `kin` datasets without comparable ids; `pictures` that are not noted;
            `ids` that are missing.
        text: for people.
    """

    kind: Literal["unknown", "kin", "pictures", "ids"]
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
        return [each for each in self.findings if not self.legacy or each.where.startswith(PRETRAINING)]

    def counts(self) -> dict[str, int]:
        """Test images by kind."""
        return _by_kind(self.findings)

    @property
    def text(self) -> str:
        """What a table must say; empty if nothing was found."""
        early = [each for each in self.findings if each.where.startswith(PRETRAINING)]
        late = [each for each in self.findings if not each.where.startswith(PRETRAINING)]
        parts = [f"{amount_of(early)} in pretraining"] if early else []
        by_design = ", by design of the legacy split" if self.legacy else ""
        parts += [f"{amount_of(late)} in training or validation{by_design}"] if late else []
        return f"of {self.images:,} test images " + "; ".join(parts) if parts else ""


def _by_kind(findings: Sequence[Overlap]) -> dict[str, int]:
    images: dict[str, set[str]] = {}
    for each in findings:
        images.setdefault(each.kind, set()).add(each.image)
    return {kind: len(images[kind]) for kind in ("patient", "file", "picture") if kind in images}


def amount_of(findings: Sequence[Overlap]) -> str:
    """Images, patients and kinds of findings, in words."""
    images = len({each.image for each in findings})
    patients = len({each.patient for each in findings if each.patient})
    kinds = ", ".join(f"{number:,} by {kind}" for kind, number in _by_kind(findings).items())
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
        _write_csv(path, leakage.findings)
    refused = leakage.refused
    if not refused or allow:
        return
    chosen = _one_a_patient(refused)[:_SHOWN]
    shown = [f"  {each}" for each in chosen]
    rest = len(refused) - len(chosen)
    shown += [f"  … and {rest:,} more"] if rest else []
    listed = f"All are listed in {path}.\n" if path else ""
    raise UserError(
        f"{leakage.protocol}: the encoder or its training has seen what it is tested on. Of {leakage.images:,} test "
        f"images {amount_of(refused)}:\n" + "\n".join(shown) + f"\n{listed}{_way_out(refused)}"
    )


def _way_out(refused: Sequence[Overlap]) -> str:
    ways = []
    if any(each.where.startswith(PRETRAINING) for each in refused):
        ways.append(
            "pretrain without them (`cmcgns check PRETRAINING-DATA TEST-DATA --fix` writes a cleaned manifest)"
        )
    if any(not each.where.startswith(PRETRAINING) for each in refused):
        ways.append("give the cleaned manifest of `cmcgns check DATA --fix` to --data")
    ways.append("take these images out of the test split")
    return f"Ways out: {', or '.join(ways)}. --allow-leakage goes on, and the report says so on top"


def _write_csv(path: Path, findings: Sequence[Overlap]) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([each.name for each in fields(Overlap)])
    writer.writerows(astuple(each) for each in findings)
    write_text(path, buffer.getvalue())


def _one_a_patient(findings: Sequence[Overlap]) -> list[Overlap]:
    """The first finding of every patient (of every image where no patient is named)."""
    first: dict[str, Overlap] = {}
    for each in findings:
        first.setdefault(each.patient or each.image, each)
    return list(first.values())
