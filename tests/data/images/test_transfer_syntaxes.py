"""Every transfer syntax is read, or named with the way out: docs/datasets.md has the table."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import UID, AllTransferSyntaxes, ExplicitVRLittleEndian, JPEGExtended12Bit

from cmcgns.common.errors import UserError
from cmcgns.data.images.read import decode_image
from support.image_faults import dicom, dicom_bytes

DOCS = Path(__file__).parents[3] / "docs" / "datasets.md"
SMOOTH = (1500 + 1200 * np.sin(np.arange(96)[:, None] / 9) * np.cos(np.arange(80) / 7)).astype(np.uint16)
WINDOW = {"WindowCenter": 2048, "WindowWidth": 4096}

# Syntax, name that GDCM has for it, most that a value may be off (of 4095).
BY_GDCM = [
    ("1.2.840.10008.1.2.4.51", "JPEGExtendedProcess2_4", 16),
    ("1.2.840.10008.1.2.4.57", "JPEGLosslessProcess14", 0),
    ("1.2.840.10008.1.2.4.70", "JPEGLosslessProcess14_1", 0),
    ("1.2.840.10008.1.2.4.80", "JPEGLSLossless", 0),
    ("1.2.840.10008.1.2.4.81", "JPEGLSNearLossless", 16),
    ("1.2.840.10008.1.2.4.90", "JPEG2000Lossless", 0),
    ("1.2.840.10008.1.2.4.91", "JPEG2000", 32),
    ("1.2.840.10008.1.2.5", "RLELossless", 0),
]


def transcoded(content: bytes, name: str, folder: Path) -> Path:
    """The file in another transfer syntax, by GDCM."""
    gdcm = pytest.importorskip("gdcm")
    source, target = folder / "source.dcm", folder / "target.dcm"
    source.write_bytes(content)
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(source))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, name)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return target


@pytest.mark.parametrize(("syntax", "name", "off"), BY_GDCM)
def test_compressed_radiographs_of_12_bit_are_read(syntax: str, name: str, off: int, tmp_path: Path) -> None:
    target = transcoded(dicom_bytes(dicom(SMOOTH, 12, **WINDOW)), name, tmp_path)
    assert pydicom.dcmread(target, stop_before_pixels=True).file_meta.TransferSyntaxUID == syntax
    decoded = decode_image(target, bits=16)
    assert np.abs(decoded.pixels / (65535 / 4095) - SMOOTH).max() <= off + 1
    assert decoded.tags["transfer_syntax"] == UID(syntax).name


@pytest.mark.parametrize("name", ["JPGExtended.dcm", "JPEG-lossy.dcm"])
def test_published_jpeg_of_12_bit(name: str) -> None:
    """As GDCM itself reads them; of the second its library complains without need."""
    gdcm = pytest.importorskip("gdcm")
    file = get_testdata_file(name, download=False)
    if file is None:
        pytest.skip("pydicom-data is not installed")
    reader = gdcm.ImageReader()
    reader.SetFileName(file)
    assert reader.Read()
    stored = np.frombuffer(reader.GetImage().GetBuffer().encode("utf-8", "surrogateescape"), "<u2")
    expected = (stored.astype(float) - stored.min()) * 255 / np.ptp(stored)
    decoded = decode_image(Path(file))
    assert np.abs(decoded.pixels.reshape(-1) - expected).max() <= 0.51
    assert decoded.tags["transfer_syntax"] == JPEGExtended12Bit.name


@pytest.mark.parametrize("syntax", [*sorted(AllTransferSyntaxes), "1.2.840.10008.1.2.4.110", "1.2.3.4"])
def test_docs_say_what_is_read_and_messages_what_to_do_with_the_rest(syntax: str, tmp_path: Path) -> None:
    from pydicom.pixels.decoders.base import get_decoder

    try:
        read = get_decoder(UID(syntax)).is_available and not UID(syntax).is_deflated
    except (NotImplementedError, ValueError):
        read = False
    stated = DOCS.read_text("utf-8").split("### Transfer syntaxes")[1].split("\n## ")[0]
    lines = [line for line in stated.splitlines() if line.startswith("|") and f"`{syntax}`" in line]
    assert bool(lines) or not read, "the table of docs/datasets.md has every syntax that is read"
    assert all(("| yes" in line) == read for line in lines)
    if not read:
        stated_uid = ExplicitVRLittleEndian.encode() + b"\0"
        length = len(syntax) + len(syntax) % 2
        content = dicom_bytes(dicom(SMOOTH, 12)).replace(
            len(stated_uid).to_bytes(2, "little") + stated_uid,
            length.to_bytes(2, "little") + syntax.ljust(length, "\0").encode(),
        )
        (tmp_path / "a.dcm").write_bytes(content)
        with pytest.raises(UserError, match="convert the file to Explicit VR Little Endian first"):
            decode_image(tmp_path / "a.dcm")
