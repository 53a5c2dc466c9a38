"""What a reader must know before reading the figures."""

from __future__ import annotations

from cmcgns.evaluation.report.names import ProtocolName, protocol_title
from cmcgns.evaluation.report.selection import Selection
from cmcgns.evaluation.report.sources import extent

FEW_PATIENTS = 30
FEW_CHEXPERT_IMAGES = 250


def statements(selection: Selection) -> list[str]:
    """Sentences that hold for these rows; the general ones first."""
    if not selection.rows:
        return ["There is no figure to read: nothing was finished."]
    found = [*_general(selection), *_few_patients(selection), *_chexpert(selection)]
    if any(ProtocolName.parse(name).is_legacy for name in selection.protocols):
        found.append(
            "Published figures stand beside legacy protocols only. They are copied, other hands measured them, they "
            "have no interval, and copied tables disagree by several points: orientation, not a comparison."
        )
    return [*found, *_splits(selection)]


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


def _few_patients(selection: Selection) -> list[str]:
    rows = [row for row in selection.rows if not row.label and row.value is not None and row.patients < FEW_PATIENTS]
    few = {row.protocol: row.patients for row in rows if not row.group}
    counts: dict[str, list[int]] = {}
    for row in rows:
        if row.group:
            counts.setdefault(row.group, []).append(row.patients)
    groups = [f"{group} ({extent(found)})" for group, found in counts.items()]
    found = []
    if few:
        names = ", ".join(f"{protocol_title(name, selection.about)} ({count})" for name, count in few.items())
        found.append(f"Fewer than {FEW_PATIENTS} test patients: {names}. Their intervals are too narrow.")
    if groups:
        found.append(
            f"Fewer than {FEW_PATIENTS} patients in subgroups: {', '.join(groups)}. Their intervals are too narrow."
        )
    return found


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


def _splits(selection: Selection) -> list[str]:
    """Encoders that were judged on unlike test sets."""
    found = []
    for name in selection.protocols:
        if len({row.split for row in selection.of(name)}) > 1:
            title = protocol_title(name, selection.about)
            found.append(f"{title}: the encoders were judged on different splits; their figures do not compare.")
    return found
