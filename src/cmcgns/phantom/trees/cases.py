"""The studies of a tree, and the files that it is made of: pictures, DICOM and tables."""

import csv
import gzip
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cmcgns.common.errors import UserError
from cmcgns.common.packaged import packaged_yaml
from cmcgns.phantom.findings import FINDINGS
from cmcgns.phantom.study import DrawnFinding, Study, make_study, plan_study, render

LAYOUTS: dict[str, Any] = packaged_yaml("cmcgns.phantom.trees", "layouts.yaml")
Row = Sequence[object]

DEVICES = ("chest wall", "superior vena cava", "trachea")  # places of pacemakers, lines and tubes


@dataclass(frozen=True)
class Case:
    """A study in its tree.

    Attributes:
        study: image, findings and report.
        seed: of the series.
        index: of the study in the series.
        patient: number of the patient, from 1.
        number: which study of that patient it is, from 0.
    """

    study: Study
    seed: int
    index: int
    patient: int
    number: int

    def digest(self, purpose: str, digits: int = 32) -> str:
        """Hexadecimal name, different for every study and purpose."""
        return hashlib.blake2b(f"{purpose} {self.study.study_id}".encode()).hexdigest()[:digits]

    def uid(self, purpose: str) -> str:
        """DICOM's unique identifier for a purpose, made of a hash."""
        return f"2.25.{int(self.digest(purpose), 16)}"

    @property
    def nih_image(self) -> str:
        """NIH's name of the image, by patient and follow-up: `00000012_001.png`."""
        return f"{self.patient:08d}_{self.number:03d}.png"

    @property
    def nih_labels(self) -> list[str]:
        """NIH's labels of the findings, sorted; empty for a normal study."""
        labels = LAYOUTS["nih"]["labels"]
        return sorted({label for finding in self.study.findings for label in labels.get(finding.label, ())})

    @property
    def rsna_image(self) -> str:
        """The challenge's name of the same image."""
        return str(UUID(self.digest("image")))

    def found(self, label: str) -> list[DrawnFinding]:
        """The findings of one of the canonical labels."""
        return [finding for finding in self.study.findings if finding.label == label]


def make_cases(studies: int, seed: int, size: int, view: str | None = None) -> list[Case]:
    """The first studies of a series.

    Args:
        studies: how many.
        seed: of the series.
        size: of the images, pixels.
        view: only studies of that view count; None: all do.
    """
    indices = (index for index in count() if view is None or plan_study(seed, index).view == view)
    cases: list[Case] = []
    latest: dict[str, Case] = {}
    for index in islice(indices, studies):
        study = make_study(seed, index, size)
        before = latest.get(study.patient_id)
        patient, number = (before.patient, before.number + 1) if before else (len(latest) + 1, 0)
        cases.append(Case(study, seed, index, patient, number))
        latest[study.patient_id] = cases[-1]
    return cases


def parts(cases: list[Case], shares: Mapping[str, float]) -> list[str]:
    """Name of the part that each case is in: patients in their order fill one part after the other."""
    ends = np.round(np.cumsum(list(shares.values())) * max(case.patient for case in cases))
    names = list(shares)
    return [names[int(np.searchsorted(ends, case.patient))] for case in cases]


def side_view(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A stand-in for a lateral image, (H,W/2): the right half of the frontal one (H,W). Only its label is meant."""
    return image[:, image.shape[1] // 2 :]


def region(case: Case, label: str) -> NDArray[np.bool_]:
    """All that a label covers, (H,W) Boolean; the study's own label map lacks what later findings hide.

    The study is drawn again up to the last finding of that label: what is painted later cannot change it.
    """
    plan = plan_study(case.seed, case.index)
    painted = [finding.label for finding in plan.findings]
    if label not in painted:
        return np.zeros(case.study.mask.shape, dtype=bool)
    later = set(painted[painted.index(label) :]) - {label}  # findings of a label stand together
    label_map = render(plan.without(later), case.study.mask.shape[0])[1]
    return np.asarray(label_map == 1 + FINDINGS.index(label))


def certainty(case: Case, label: str) -> int | None:
    """What a reader of the report says of a canonical label: 1, -1 (possible), or None (not mentioned)."""
    found = case.found(label)
    if not found:
        return None
    return 1 if any(finding.certain for finding in found) else -1


def chexpert_labels(case: Case) -> dict[str, int | None]:
    """CheXpert's names -> 1, -1 or None, without those that are never there.

    Atelectasis, which has no drawing of its own, goes with an effusion that is more than small; the protocol of this
    dataset needs it.
    """
    pressed = any(finding.degree != "small" for finding in case.found("Effusion"))
    devices = any(finding.place in DEVICES for finding in case.found("Foreign Object"))
    stated = {name: certainty(case, label) for name, label in LAYOUTS["chexpert"]["labels"].items()}
    return stated | {
        "No Finding": None if case.study.findings else 1,
        "Atelectasis": 1 if pressed else None,
        "Support Devices": 1 if devices else None,
    }


_DIGITAL_RADIOGRAPH = "1.2.840.10008.5.1.4.1.1.1.1"  # SOP class, DICOM PS3.4 B.5


def write_picture(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write (H,W) gray values as PNG or, by the suffix, as JPEG of quality 95."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        Image.fromarray(pixels).save(path, "PNG")
    else:
        Image.fromarray(pixels).save(path, "JPEG", quality=95)


def write_tables(
    out: Path, columns: Mapping[str, Sequence[str]], rows: Mapping[str, Iterable[Row]], file: str = "{}"
) -> None:
    """Write tables as CSV, header first; None is an empty cell.

    Args:
        out: folder.
        columns: of each table.
        rows: of each table; one that is missing has none.
        file: name of the file, with `{}` for the table's; `.gz` is compressed.
    """
    for name, header in columns.items():
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([header, *rows.get(name, ())])
        content, path = text.getvalue().encode(), out / file.format(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def write_dicom(path: Path, case: Case, instance: str) -> None:
    """Write a case's image as uncompressed DICOM of 12 bits; every third one is MONOCHROME1 (low is white)."""
    try:
        from pydicom.dataset import FileDataset, FileMetaDataset
        from pydicom.uid import UID, ExplicitVRLittleEndian
    except ImportError:
        raise UserError("writing DICOM files needs pydicom: pip install 'cmcgns[dicom]'") from None
    inverted = case.index % 3 == 2
    values = (case.study.image.astype(np.uint32) * 4095 + 127) // 255
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = UID(_DIGITAL_RADIOGRAPH)
    meta.MediaStorageSOPInstanceUID = UID(instance)
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = _DIGITAL_RADIOGRAPH, instance
    data.StudyInstanceUID, data.SeriesInstanceUID = case.uid("study"), case.uid("series")
    data.Modality, data.BodyPartExamined, data.ViewPosition = "CR", "CHEST", case.study.view
    data.PatientSex, data.PatientAge = case.study.sex, f"{case.study.age:03d}Y"
    data.Rows, data.Columns = values.shape
    data.SamplesPerPixel, data.PixelRepresentation = 1, 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    data.WindowCenter, data.WindowWidth = 2048, 4096
    data.PixelData = (4095 - values if inverted else values).astype("<u2").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
