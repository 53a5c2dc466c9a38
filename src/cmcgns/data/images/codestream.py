"""Compressed pictures inside of DICOM files: JPEG, JPEG-LS and JPEG 2000 have headers of their own.

Decoders trust these headers, so they are compared with the file's before anything is decoded.
"""

from pathlib import Path

from cmcgns.common.errors import UserError

_START_OF_SCAN, _START_OF_DATA, _END = b"\xff\xda", b"\xff\x93", b"\xff\xd9"


def check_codestream(stream: bytes, expected: tuple[int, int, int], path: Path) -> None:
    """Refuse a stream of another size than its file says, or without an end.

    What follows the end (zero bytes, mostly) is padding. RLE has no header of its own, and passes.

    Args:
        stream: one frame.
        expected: width, height and samples of a pixel by the file's header.
        path: named in messages.
    """
    jpeg = stream.startswith(b"\xff\xd8")
    found = _jpeg_size(stream) if jpeg else _jpeg_2000_size(stream)
    if found is not None and found != expected:
        raise UserError(
            f"{path}: the compressed picture is {found}, its DICOM header says {expected} (width, height, samples)"
        )
    if jpeg or found is not None:  # neither JPEG nor JPEG 2000 has an end marker among its data
        start = stream.find(_START_OF_SCAN if jpeg else _START_OF_DATA)
        if stream.find(_END, max(0, start)) < 0:
            raise UserError(f"{path}: truncated pixels (the compressed picture has no end marker)")


def jpeg_precision(stream: bytes) -> int:
    """Bits of a sample by the start-of-frame segment; 0: there is none."""
    at = _start_of_frame(stream)
    return 0 if at is None else stream[at + 4]


def _jpeg_2000_size(stream: bytes) -> tuple[int, int, int] | None:
    """Width, height and samples by the SIZ segment, which may follow JP2 boxes; None: there is none (RLE)."""
    start = stream.find(b"\xff\x4f\xff\x51", 0, 4096)
    if start < 0:
        return None
    right, bottom, left, top = (int.from_bytes(stream[start + k : start + k + 4], "big") for k in (8, 12, 16, 20))
    return right - left, bottom - top, int.from_bytes(stream[start + 40 : start + 42], "big")


def _jpeg_size(stream: bytes) -> tuple[int, int, int] | None:
    """Width, height and samples by the start-of-frame segment of JPEG and JPEG-LS; None: there is none."""
    at = _start_of_frame(stream)
    if at is None:
        return None
    height, width = (int.from_bytes(stream[at + k : at + k + 2], "big") for k in (5, 7))
    return width, height, stream[at + 9]


def _start_of_frame(stream: bytes) -> int | None:
    at = 2
    while at + 10 <= len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return at
        at += 1 if marker == 0xFF else 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return None
