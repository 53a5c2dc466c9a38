"""Full-size radiographs from PNG, JPEG and DICOM files as one gray array, or a message that says what is wrong."""

import io
import logging
import os
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cmcgns.common.errors import UserError
from cmcgns.data.images.cache import MAX_PIXELS
from cmcgns.data.images.dicom import looks_like_dicom, read_dicom
from cmcgns.data.images.resize import Gray, check_size, scaled_size

MAX_BYTES = 2**29  # of a file: no radiograph within the bound of pixels needs more
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_OTHER_FORMATS = {
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"RIFF": "WebP",
    b"\x00\x00\x00\x0cjP": "JPEG 2000 outside DICOM",
    b"\xff\x4f\xff\x51": "JPEG 2000 outside DICOM",
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"%PDF": "PDF",
    b"version https://git-lfs": "Git LFS pointer, the picture itself was not fetched",
    b"<": "HTML or XML text",
}


@dataclass(frozen=True)
class Decoded:
    """A picture as a viewer would show it, black 0.

    Attributes:
        pixels: (H,W) uint8 or uint16.
        high: the value that means white: 255 or 65535.
        width: of the source picture, upright; more than W where `at_least` allowed a reduced decode.
        height: of the source picture, upright.
        tags: what the file says beside the pixels: `format`, for a 16-bit PNG `highest` (the largest value in it),
            for DICOM see `cmcgns.data.images.dicom.read_dicom`.
    """

    pixels: Gray
    high: int
    width: int
    height: int
    tags: dict[str, str] = field(default_factory=dict)


def decode_image(path: Path, at_least: int | None = None, bits: int = 8) -> Decoded:
    """Decode a radiograph; the content decides what it is, not the suffix.

    - PNG: 1 to 16 bit, gray, colour or palette, with or without alpha (which is dropped). 16-bit gray stays uint16
      with white at 65535, as the format defines it: nothing is stretched, so a file that keeps 12 bits in 16 comes
      out dark, and its tag `highest` tells. 16-bit colour is read as 8-bit.
    - JPEG: gray or colour, upright by its EXIF orientation; CMYK is refused.
    - DICOM: rescale, VOI and MONOCHROME1 applied at full size, see `cmcgns.data.images.dicom`.

    Args:
        path: the file.
        at_least: a JPEG may come reduced by 2, 4 or 8 as long as its long side has so many pixels (much faster).
        bits: 8 or 16, of what DICOM becomes.

    Raises:
        UserError: missing, unreadable, truncated, oversized or of another format; names path and rule.
    """
    content = _read_file(path)
    with _reporting(path):
        if content.startswith(_PNG):
            _check_png(content, path)
            return _decode_with_pillow(content, path, "PNG", None)
        if content.startswith(_JPEG):
            return _decode_with_pillow(content, path, "JPEG", at_least)
        if looks_like_dicom(content):
            pixels, tags = read_dicom(content, path, bits)
            height, width = pixels.shape
            return Decoded(pixels, 255 if bits == 8 else 65535, width, height, {"format": "DICOM"} | tags)
    found = next((name for start, name in _OTHER_FORMATS.items() if content.lstrip().startswith(start)), "unknown")
    raise UserError(f"{path}: not a PNG, JPEG or DICOM file (content: {found})")


def inside(root: Path, path: Path) -> Path:
    """The real file behind a path, which must lie below the root.

    Raises:
        UserError: a symbolic link or `..` leads elsewhere.
    """
    real_root, real = (Path(os.path.realpath(place)) for place in (root, path))
    if not real.is_relative_to(real_root):
        raise UserError(f"{path}: leads out of {root} (to {real}); copy the file into the folder")
    return real


def _read_file(path: Path) -> bytes:
    try:
        if not path.exists():
            raise UserError(f"{path}: no such image")
        if not path.is_file():  # a pipe would block, a folder has no content
            raise UserError(f"{path}: not a file")
        size = path.stat().st_size
        if size == 0:
            raise UserError(f"{path}: empty file")
        if size > MAX_BYTES:
            raise UserError(f"{path}: {size} bytes are more than the bound {MAX_BYTES}")
        return path.read_bytes()
    except (
        OSError,
        RuntimeError,
    ) as error:  # no permission; a loop of links is a RuntimeError in Python 3.11 and 3.12
        raise UserError(f"{path}: cannot be read ({error})") from error


@contextmanager
def _reporting(path: Path) -> Iterator[None]:
    """Whatever a decoder says of a bad file becomes one message; what it says of a readable one is not printed."""
    logger = logging.getLogger("pydicom")
    disabled, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise UserError(f"{path}: more pixels than the bound {MAX_PIXELS}") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{path}: unreadable image (its header is damaged)") from error
    except Exception as error:  # decoders meet hostile bytes with errors of every type
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"{path}: unreadable image ({reason})") from error
    finally:
        logger.disabled = disabled


def _check_png(content: bytes, path: Path) -> None:
    """Size, checksums and end of a PNG: Pillow does not check all of them."""
    if content[12:16] != b"IHDR" or len(content) < 33:
        raise UserError(f"{path}: truncated PNG (no header)")
    check_size(int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big"), path)
    view, start, name = memoryview(content), len(_PNG), b""
    while name != b"IEND":
        end = start + 12 + int.from_bytes(view[start : start + 4], "big")
        if start + 12 > len(content) or end > len(content):
            raise UserError(f"{path}: truncated PNG (ends after {len(content)} bytes, before its IEND)")
        name = bytes(view[start + 4 : start + 8])
        if zlib.crc32(view[start + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise UserError(f"{path}: damaged PNG (wrong checksum of {name.decode('latin-1')!r} at byte {start})")
        start = end


def _decode_with_pillow(content: bytes, path: Path, kind: str, at_least: int | None) -> Decoded:
    with Image.open(io.BytesIO(content), formats=[kind]) as image:
        width, height = image.size
        check_size(width, height, path)
        if image.mode in ("CMYK", "YCCK"):
            raise UserError(f"{path}: CMYK JPEG; convert it to gray or RGB first")
        if image.getexif().get(0x0112) in _TURNED:
            width, height = height, width
        if at_least is not None:
            image.draft("L", scaled_size(*image.size, at_least))  # decodes at the nearest larger eighth
        ImageOps.exif_transpose(image, in_place=True)
        tags = {"format": kind}
        if not image.mode.startswith("I"):
            return Decoded(np.asarray(_to_gray(image)), 255, width, height, tags)
        pixels = np.asarray(image).astype(np.uint16)
        return Decoded(pixels, 65535, width, height, tags | {"highest": str(pixels.max())})


def _to_gray(image: Image.Image) -> Image.Image:
    if image.mode == "P":  # Pillow warns of palettes with transparency on any other way
        image = image.convert("RGBA")
    return image if image.mode == "L" else image.convert("L")
