"""Refusing to judge an encoder by what it has seen, with the findings as a table and the way out."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path

from cmcgns.errors import UserError
from cmcgns.evaluation.leakage.found import PRETRAINING, Leakage, Overlap, amount_of
from cmcgns.files import write_text

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
