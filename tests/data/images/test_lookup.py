"""Lookup tables of DICOM files give the picture that was meant, whatever is wrong with their descriptors."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from cmcgns.common.errors import UserError
from cmcgns.data.images.read import decode_image
from support.image_faults import dicom, dicom_bytes

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)  # every 12-bit value once


def item(descriptor: list[int], data: Any, kind: str = "US", descriptor_kind: str = "US") -> list[Dataset]:
    table = Dataset()
    table.add_new("LUTDescriptor", descriptor_kind, descriptor)
    table.add_new("LUTData", kind, data)
    return [table]


def pixels(dataset: Dataset, tmp_path: Path, signed: bool = False) -> np.ndarray:
    """Gray levels of a file; `signed`: descriptors are of signed representation."""
    path = tmp_path / "picture.dcm"
    content = dicom_bytes(dataset)
    if signed:
        content = content.replace(b"\x28\x00\x02\x30US", b"\x28\x00\x02\x30SS")
    path.write_bytes(content)
    return decode_image(path).pixels.reshape(-1)


def curve(count: int, white: int) -> np.ndarray:
    """A bent table from 0 to white."""
    return np.rint(white * (np.arange(count) / (count - 1)) ** 1.5).astype(int)


def shown(entries: np.ndarray, white: int, first: int = 0, values: np.ndarray = RAMP) -> np.ndarray:
    """Gray levels by the definition, one value after another."""
    places = [min(max(int(value) - first, 0), len(entries) - 1) for value in values.reshape(-1)]
    return entries[places] * 255 / white


@pytest.mark.parametrize("declared", [8, 10, 12, 14, 16, 0])
@pytest.mark.parametrize("needed", [8, 10, 12, 14, 16])
def test_the_entries_say_how_many_bits_they_have(declared: int, needed: int, tmp_path: Path) -> None:
    entries = curve(4096, 2**needed - 1)
    dataset = dicom(RAMP, 12, VOILUTSequence=item([4096, 0, declared], entries.tolist()))
    assert np.abs(pixels(dataset, tmp_path) - shown(entries, 2**needed - 1)).max() <= 0.51


def test_a_descriptor_that_was_corrected_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(
        dicom_bytes(dicom(RAMP, 12, VOILUTSequence=item([4096, 0, 16], curve(4096, 4095).tolist())))
    )
    assert decode_image(tmp_path / "a.dcm").tags["voi"] == "lut of 12 bits, declared 16"


def test_no_entries_are_65536(tmp_path: Path) -> None:
    stored = (RAMP.astype(np.uint32) * 16).astype(np.uint16)
    entries = curve(65536, 65535)
    dataset = dicom(stored, 16, VOILUTSequence=item([0, 0, 16], entries.astype("<u2").tobytes(), "OW"))
    assert np.abs(pixels(dataset, tmp_path) - shown(entries, 65535, values=stored)).max() <= 0.51


@pytest.mark.parametrize("implicit", [False, True])
def test_the_sign_of_the_first_value_is_what_the_values_need(implicit: bool, tmp_path: Path) -> None:
    entries = curve(4096, 4095)
    table = item([4096, 65536 - 1024, 12], entries.astype("<u2").tobytes(), "OW")  # -1024, written as unsigned
    dataset = dicom(RAMP, 12, VOILUTSequence=table, RescaleSlope=1, RescaleIntercept=-1024)
    if implicit:
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    assert np.abs(pixels(dataset, tmp_path) - shown(entries, 4095)).max() <= 0.51


def test_large_values_stay_unsigned_where_pixels_are(tmp_path: Path) -> None:
    stored = RAMP + np.uint16(60000)
    entries = curve(4096, 4095)
    dataset = dicom(stored, 16, VOILUTSequence=item([4096, 60000, 12], entries.tolist()))
    assert np.abs(pixels(dataset, tmp_path) - shown(entries, 4095)).max() <= 0.51


@pytest.mark.parametrize("implicit", [False, True])
def test_signed_descriptors_count_more_than_32767_entries(implicit: bool, tmp_path: Path) -> None:
    stored = (RAMP.astype(np.int32) * 16 - 32768).astype(np.int16)
    entries = curve(65535, 65535)
    table = item([65535, 32768, 16], entries.astype("<u2").tobytes(), "OW")  # signed: -1 and -32768
    dataset = dicom(stored, 16, VOILUTSequence=table)
    if implicit:
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    assert np.abs(pixels(dataset, tmp_path, True) - shown(entries, 65535, -32768, stored)).max() <= 0.51


@pytest.mark.parametrize("kind", ["US", "OW", "big endian"])
@pytest.mark.parametrize("count", [256, 201])
def test_bytes_may_stand_two_in_a_word(kind: str, count: int, tmp_path: Path) -> None:
    entries = curve(count, 255)
    packed = np.append(entries, [0] * (count % 2)).astype(np.uint8)
    words = packed[::2].astype(int) + 256 * packed[1::2].astype(int)  # the first in the lower byte
    data = words.tolist() if kind == "US" else words.astype(">u2" if kind == "big endian" else "<u2").tobytes()
    dataset = dicom(RAMP, 12, VOILUTSequence=item([count, 100, 8], data, "US" if kind == "US" else "OW"))
    if kind == "big endian":
        dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        dataset.PixelData = RAMP.byteswap().tobytes()
    assert np.abs(pixels(dataset, tmp_path) - shown(entries, 255, 100)).max() <= 0.51


@pytest.mark.parametrize("first", [-2048, 65536 - 2048])
def test_modality_tables_are_checked_alike(first: int, tmp_path: Path) -> None:
    stored = RAMP.astype(np.int16) - 2048
    entries = curve(4096, 40000)
    table = item([4096, first, 16], entries.astype("<u2").tobytes(), "OW", "SS" if first < 0 else "US")
    found = pixels(dicom(stored, 12, ModalityLUTSequence=table), tmp_path)
    assert np.abs(found - entries * 255 / 40000).max() <= 0.51  # no window: least to greatest value


@pytest.mark.parametrize(
    ("descriptor", "data", "message"),
    [
        ([4096, 0, 12], [1, 2, 3], "lookup table of 3 values, its LUTDescriptor says 4096"),
        ([4096, 0], [1, 2, 3], "LUTDescriptor is not three whole numbers"),
        ([3, 0, 8], None, "without LUTData"),
    ],
)
def test_unusable_tables_are_named(descriptor: list[int], data: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"picture\.dcm: lookup table.*{message.removeprefix('lookup table ')}"):
        pixels(dicom(RAMP, 12, VOILUTSequence=item(descriptor, data)), tmp_path)
