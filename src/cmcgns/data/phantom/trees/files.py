"""Files of a tree: pictures, DICOM and tables."""

import csv
import gzip
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cmcgns.data.phantom.trees.cases import Case
from cmcgns.errors import UserError

_DIGITAL_RADIOGRAPH = "1.2.840.10008.5.1.4.1.1.1.1"  # SOP class, DICOM PS3.4 B.5


def write_picture(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write (H,W) gray values as PNG or, by the suffix, as JPEG of quality 95."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        Image.fromarray(pixels).save(path, "PNG")
    else:
        Image.fromarray(pixels).save(path, "JPEG", quality=95)


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write a table, header first; None is an empty cell; `.gz` is compressed."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    content = text.getvalue().encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def write_dicom(path: Path, case: Case, instance: str) -> None:
    """Write a case's image as uncompressed DICOM of 12 bits; every third one is MONOCHROME1 (low values are white).

    Args:
        path: the file.
        case: its image, and the view, sex and age that the file states.
        instance: the image's unique identifier.

    Raises:
        UserError: pydicom is not installed.
    """
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
