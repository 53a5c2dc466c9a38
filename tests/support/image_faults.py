"""A corpus of malformed and odd image files: name -> what writes it, and the word that its message must contain.

`word` None: the file is odd but legitimate, and must decode. Other tests import `FAULTS`, or `write_faults` for a
folder of all of them.
"""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

PICTURE = (np.add.outer(np.arange(40), np.arange(48)) * 2 + 20).astype(np.uint8)  # (40,48), no two rows alike
BUSY = np.random.default_rng(0).integers(0, 256, (64, 80), dtype=np.uint8)  # its files can be cut amid the pixels


@dataclass(frozen=True)
class Fault:
    """A file to be written.

    Attributes:
        file: its name.
        write: makes it at the path it is given.
        word: in the message; None: it decodes.
    """

    file: str
    write: Callable[[Path], object]
    word: str | None


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    """Pixels as a PNG, JPEG or other file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_with(extra: bytes, header: bytes | None = None) -> bytes:
    """The picture as PNG with chunks put behind its header, or with another header."""
    png = encoded(PICTURE)
    return png[:8] + (header or png[8:33]) + extra + png[33:]


def png_header(width: int, height: int, bits: int = 8, colour: int = 0) -> bytes:
    """The first chunk of a PNG, by default of a gray one."""
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))


def dicom(pixels: np.ndarray = PICTURE, bits_stored: int | None = None, **elements: Any) -> Dataset:
    """A DICOM dataset of gray (H,W), colour (H,W,3) or, with NumberOfFrames, (F,H,W) pixels.

    Args:
        pixels: uint8, uint16, int8 or int16.
        bits_stored: all by default.
        elements: by keyword; None removes one.
    """
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.826.0.1.3680043.8.498.1"
    colour = pixels.ndim == 3 and "NumberOfFrames" not in elements
    dataset.Rows, dataset.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = 8 * pixels.itemsize
    dataset.BitsStored = bits_stored or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes() + b"\x00" * (pixels.nbytes % 2)
    dataset["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"
    for name, value in elements.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    return dataset


def dicom_bytes(dataset: Dataset) -> bytes:
    """A dataset as a file with preamble."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def compressed(dataset: Dataset, syntax: str, stream: bytes) -> bytes:
    """A file whose pixels are an arbitrary compressed stream."""
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return dicom_bytes(dataset)


def _bytes(content: bytes | Callable[[], bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content() if callable(content) else content)


def _dicom(cut: int = 0, **elements: Any) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        content = dicom_bytes(dicom(**elements))
        path.write_bytes(content[: len(content) - cut])

    return write


def _jpeg_in_dicom(stream: bytes, **elements: Any) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(compressed(dicom(**elements), JPEGBaseline8Bit, stream))


def _jpeg_2000_in_dicom(change: Callable[[bytes], bytes], **elements: Any) -> Callable[[Path], object]:
    stream = encoded(BUSY, "JPEG2000", irreversible=False, no_jp2=True)
    return lambda path: path.write_bytes(compressed(dicom(BUSY, **elements), JPEG2000Lossless, change(stream)))


def _huge_jpeg() -> bytes:
    jpeg = encoded(PICTURE, "JPEG")
    frame = jpeg.index(b"\xff\xc0")
    return jpeg[: frame + 5] + struct.pack(">HH", 60000, 60000) + jpeg[frame + 9 :]


def _bomb(name: bytes) -> bytes:
    packed = zlib.compress(b"\x00" * 200_000_000, 9)
    return png_with(chunk(name, b"bomb\x00\x00" + packed))


def _wrong_checksum() -> bytes:
    png = bytearray(encoded(PICTURE))
    png[png.index(b"IDAT") + 20] ^= 0xFF
    return bytes(png)


def _cmyk() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PICTURE).convert("CMYK").save(buffer, "JPEG")
    return buffer.getvalue()


def _animated() -> bytes:
    buffer = io.BytesIO()
    more = [Image.fromarray(PICTURE[::-1])]
    Image.fromarray(PICTURE).save(buffer, "PNG", save_all=True, append_images=more)
    return buffer.getvalue()


def _lut(entries: int, values: list[int]) -> list[Dataset]:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [entries, 0, 8])
    item.add_new("LUTData", "US", values)
    return [item]


def _without_meta(path: Path) -> None:
    dataset = dicom()
    del dataset.file_meta
    dataset.save_as(path, implicit_vr=True, little_endian=True)


_PNG, _JPEG, _BUSY_JPEG = encoded(PICTURE), encoded(PICTURE, "JPEG"), encoded(BUSY, "JPEG")
_TOO_SHORT_DATA = chunk(b"IDAT", zlib.compress(b"\x00" * 100)) + chunk(b"IEND", b"")
_INDEX_OUT = chunk(b"PLTE", bytes(3)) + chunk(b"IDAT", zlib.compress(b"\x00\xff" * 2)) + chunk(b"IEND", b"")
_PALETTE_HEADER = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 2, 8, 3, 0, 0, 0))
_BARE = dicom_bytes(dicom())[132:]

FAULTS: dict[str, Fault] = {
    "missing": Fault("missing.png", lambda path: path.unlink(missing_ok=True), "no such"),
    "folder": Fault("folder.png", lambda path: path.mkdir(), "not a file"),
    "link_loop": Fault("loop.png", lambda path: path.symlink_to(path.name), "such"),
    "empty": Fault("empty.jpg", _bytes(b""), "empty"),
    "text": Fault("text.png", _bytes(b"this is no picture\n"), "not a PNG"),
    "zeros": Fault("zeros.dcm", _bytes(bytes(5000)), "not a PNG"),
    "html": Fault("page.jpg", _bytes(b"<!DOCTYPE html><html>404 Not Found</html>"), "a web page"),
    "git_lfs": Fault("lfs.png", _bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "LFS"),
    "gif": Fault("picture.gif", _bytes(encoded(PICTURE, "GIF")), "GIF"),
    "bmp": Fault("bmp.png", _bytes(encoded(PICTURE, "BMP")), "BMP"),
    "tiff": Fault("tiff.jpg", _bytes(encoded(PICTURE, "TIFF")), "TIFF"),
    "gzip": Fault("gzip.dcm", _bytes(b"\x1f\x8b\x08\x00" + bytes(200)), "gzip"),
    "jpeg_magic_only": Fault("magic.jpg", _bytes(b"\xff\xd8\xff"), "unreadable"),
    "jpeg_truncated": Fault("truncated.jpg", _bytes(_BUSY_JPEG[: len(_BUSY_JPEG) * 2 // 3]), "truncated"),
    "jpeg_header_only": Fault("header.jpg", _bytes(_JPEG[:30]), "unreadable"),
    "jpeg_huge": Fault("huge.jpg", _bytes(_huge_jpeg), "bound"),
    "png_truncated": Fault("truncated.png", _bytes(_PNG[:-30]), "truncated"),
    "png_without_end": Fault("noend.png", _bytes(_PNG[:-12]), "truncated"),
    "png_header_only": Fault("header.png", _bytes(_PNG[:33]), "truncated"),
    "png_magic_only": Fault("magic.png", _bytes(_PNG[:8]), "truncated"),
    "png_checksum": Fault("checksum.png", _bytes(_wrong_checksum), "checksum"),
    "png_no_rows": Fault("norows.png", _bytes(png_with(b"", png_header(48, 0))), "no picture"),
    "png_huge": Fault("huge.png", _bytes(png_with(b"", png_header(60000, 60000))), "bound"),
    "png_too_few_rows": Fault("rows.png", _bytes(_PNG[:33] + _TOO_SHORT_DATA), "truncated"),
    "png_bits": Fault("bits.png", _bytes(png_with(b"", png_header(48, 40, 7))), "unreadable"),
    "png_text_bomb": Fault("textbomb.png", _bytes(lambda: _bomb(b"zTXt")), "too large"),
    "png_profile_bomb": Fault("profilebomb.png", _bytes(lambda: _bomb(b"iCCP")), "too large"),
    "dicom_no_pixels": Fault("nopixels.dcm", _dicom(PixelData=None), "without pixels"),
    "dicom_header_only": Fault("header.dcm", _bytes(bytes(128) + b"DICM"), "without pixels"),
    "dicom_truncated": Fault("truncated.dcm", _dicom(cut=300), "truncated"),
    "dicom_few_pixels": Fault("few.dcm", _dicom(PixelData=bytes(100)), "100 of 1920 bytes"),
    "dicom_no_rows": Fault("norows.dcm", _dicom(Rows=None), "without Rows"),
    "dicom_zero_rows": Fault("zerorows.dcm", _dicom(Rows=0), "no picture"),
    "dicom_huge": Fault("huge.dcm", _dicom(Rows=60000, Columns=60000), "bound"),
    "dicom_frames": Fault("frames.dcm", _dicom(pixels=np.stack([PICTURE] * 3), NumberOfFrames=3), "3 frames"),
    "dicom_palette": Fault("palette.dcm", _dicom(PhotometricInterpretation="PALETTE COLOR"), "PALETTE"),
    "dicom_32_bit": Fault("bits32.dcm", _dicom(BitsAllocated=32, BitsStored=32, HighBit=31), "32 bits"),
    "dicom_bits_stored": Fault("bits.dcm", _dicom(BitsStored=12), "12 of 8 bits"),
    "dicom_slope_zero": Fault("slope.dcm", _dicom(RescaleSlope=0, RescaleIntercept=5), "RescaleSlope"),
    "dicom_short_lut": Fault("lut.dcm", _dicom(VOILUTSequence=_lut(256, [0, 1, 2])), "LUTDescriptor"),
    "dicom_no_syntax": Fault(
        "syntax.dcm",
        lambda path: path.write_bytes(compressed(dicom(), "1.2.840.10008.1.2.4.100", b"\x00" * 64)),
        "MPEG2",
    ),
    "dicom_deflated": Fault(
        "deflated.dcm",
        lambda path: path.write_bytes(bytes(128) + b"DICM" + DeflatedExplicitVRLittleEndian.encode() + bytes(90)),
        "deflated",
    ),
    "dicom_jpeg_2000_cut": Fault("j2kcut.dcm", _jpeg_2000_in_dicom(lambda stream: stream[:-200]), "truncated"),
    "dicom_jpeg_2000_size": Fault("j2ksize.dcm", _jpeg_2000_in_dicom(bytes, Rows=65), "header says"),
    "dicom_jpeg_2000_text": Fault("j2ktext.dcm", _jpeg_2000_in_dicom(lambda _: b"no picture" * 9), "unreadable"),
    "dicom_jpeg_cut": Fault("jpegcut.dcm", _jpeg_in_dicom(_BUSY_JPEG[:-100], Rows=64, Columns=80), "truncated"),
    "dicom_jpeg_size": Fault("jpegsize.dcm", _jpeg_in_dicom(_JPEG, Columns=480), "header says"),
    "dicom_rle_text": Fault(
        "rle.dcm", lambda path: path.write_bytes(compressed(dicom(), RLELossless, b"\x01" * 80)), "unreadable"
    ),
    "dicom_jpeg_ls_empty": Fault(
        "jpegls.dcm",
        lambda path: path.write_bytes(compressed(dicom(), JPEGLSLossless, b"\xff\xd8\xff\xd9")),
        "damaged",
    ),
    "dicom_jpeg_lossless_empty": Fault(
        "jpegll.dcm",
        lambda path: path.write_bytes(compressed(dicom(), JPEGLosslessSV1, b"\xff\xd8\xff\xd9")),
        "damaged",
    ),
    "dicom_file_cut": Fault(
        "filecut.dcm",
        lambda path: path.write_bytes(compressed(dicom(BUSY), JPEGBaseline8Bit, _BUSY_JPEG)[: -len(_BUSY_JPEG) // 2]),
        "truncated file",
    ),
    "dicom_many_rows": Fault("rows.dcm", _dicom(Rows=65535, Columns=65535), "bound"),
    "dicom_one_bit": Fault("onebit.dcm", _dicom(BitsAllocated=1, BitsStored=1, HighBit=0), "1 of 1 bits"),
    "dicom_lut_without_descriptor": Fault("nodescriptor.dcm", _dicom(VOILUTSequence=[Dataset()]), "LUTDescriptor"),
    "dicom_jpeg_xl": Fault(
        "jpegxl.dcm",
        lambda path: path.write_bytes(
            compressed(dicom(), "1.2.840.10008.1.2.4.100", b"\xff\x0a" * 32).replace(b".4.100", b".4.110")
        ),
        "is not read; convert",
    ),
    "png_16_bit_colour": Fault("colour16.png", _bytes(png_with(b"", png_header(48, 40, 16, 2))), "16-bit colour"),
    "png_16_bit_alpha": Fault("alpha16.png", _bytes(png_with(b"", png_header(48, 40, 16, 4))), "with alpha"),
    # Odd, but pictures.
    "jpeg_cmyk": Fault("cmyk.jpg", _bytes(_cmyk), None),
    "png_animated": Fault("animated.png", _bytes(_animated), None),
    "dicom_jpeg_padded": Fault("padded.dcm", _jpeg_in_dicom(_JPEG + bytes(40)), None),
    "one_pixel": Fault("one.png", _bytes(encoded(PICTURE[:1, :1])), None),
    "constant": Fault("constant.png", _bytes(encoded(np.full((9, 9), 7, np.uint8))), None),
    "one_pixel_dicom": Fault("one.dcm", _dicom(pixels=PICTURE[:1, :1]), None),
    "constant_dicom": Fault("constant.dcm", _dicom(pixels=np.full((8, 8), 7, np.uint16)), None),
    "jpeg_named_png": Fault("jpeg.png", _bytes(_JPEG), None),
    "dicom_named_png": Fault("dicom.png", _dicom(), None),
    "dicom_without_preamble": Fault("bare.dcm", _bytes(_BARE), None),
    "dicom_without_meta": Fault("nometa.dcm", _without_meta, None),
    "dicom_window_zero": Fault("window.dcm", _dicom(WindowCenter=0, WindowWidth=0), None),
    "dicom_too_long": Fault("long.dcm", _dicom(PixelData=PICTURE.tobytes() + bytes(20)), None),
    "dicom_colour": Fault("colour.dcm", _dicom(pixels=np.stack([PICTURE] * 3, -1)), None),
    "jpeg_trailing_bytes": Fault("trailing.jpg", _bytes(_JPEG + b"more"), None),
    "png_palette_index": Fault("palette.png", _bytes(_PNG[:8] + _PALETTE_HEADER + _INDEX_OUT), None),
    "png_broken_exif": Fault("exif.png", _bytes(png_with(chunk(b"eXIf", b"MM\x00*\x00\x00\xff\xff"))), None),
}


def write_faults(folder: Path) -> dict[str, Path]:
    """Write the whole corpus into a folder; fault -> its file."""
    for fault in FAULTS.values():
        fault.write(folder / fault.file)
    return {name: folder / fault.file for name, fault in FAULTS.items()}
