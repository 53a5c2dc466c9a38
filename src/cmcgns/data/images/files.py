"""Image files, opened by what their content is: PNG and JPEG by Pillow, DICOM by pydicom, nothing else at all.

Pillow is told the one format that it may take: it would start Ghostscript for an EPS file that is named .png.
"""

import logging
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cmcgns.common.errors import UserError, one_line
from cmcgns.common.files import not_the_file
from cmcgns.common.remote import MAX_IMAGE, NamedBytes, is_url, read_bytes
from cmcgns.data.images.place import MAX_PIXELS, check_size

FORMATS = ("PNG", "JPEG", "DICOM")
STORED = ("PNG", "JPEG")  # what `prepare` writes; Pillow may open these and no others
MAX_BYTES = 2**29  # of a file: no radiograph within the bound of pixels needs more

File: TypeAlias = str | Path | NamedBytes
"""A path, a URL, or the content of a file with its name."""

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_ORIENTATION = 0x0112
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
    b"%!": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"<": "XML text",
}
_PICTURES = {"GIF", "BMP", "TIFF", "WebP", "JPEG 2000 outside DICOM"}


def load_file(file: File, formats: tuple[str, ...]) -> tuple[NamedBytes, str]:
    """The content of a file, and which of the formats it has.

    Raises:
        UserError: it cannot be read, is empty or too large, or has none of these formats.
    """
    if not isinstance(file, NamedBytes):
        content = read_bytes(file, MAX_IMAGE) if is_url(file) else _read_file(Path(file))
        file = NamedBytes(content, str(file))
    content = file.getvalue()
    if not content:
        raise UserError(f"{file}: empty file")
    kind = next((name for name, start in (("PNG", _PNG), ("JPEG", _JPEG)) if content.startswith(start)), "")
    kind = kind or ("DICOM" if _looks_like_dicom(content) else "")
    if kind in formats:
        return file, kind
    known = " or ".join([", ".join(formats[:-1]), formats[-1]])
    if kind == "DICOM":
        raise UserError(f"{file}: a DICOM file, where {known} is read; `cmcgns prepare table` makes these of DICOM")
    found = not_the_file(content) or next(
        (name for start, name in _OTHER_FORMATS.items() if content.lstrip().startswith(start)), "unknown"
    )
    way_out = "; convert it to PNG" if found in _PICTURES else ""
    raise UserError(f"{file}: not a {known} file (content: {found}){way_out}")


def _looks_like_dicom(content: bytes) -> bool:
    """By the preamble, or, as in old files, group 0002 or 0008 at the beginning."""
    bare = content[:1] in (b"\x02", b"\x08") and content[1:2] == b"\x00" and len(content) >= 8
    return content[128:132] == b"DICM" or bare


def _read_file(path: Path) -> bytes:
    try:
        if not path.exists():
            raise UserError(f"{path}: no such file")
        if not path.is_file():  # a pipe would block, a folder has no content
            raise UserError(f"{path}: not a file")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UserError(f"{path}: {size} bytes are more than the bound {MAX_BYTES}")
        return path.read_bytes()
    except (OSError, RuntimeError) as error:  # no permission; a loop of links: RuntimeError in Python 3.11 and 3.12
        raise UserError(f"{path}: cannot be read ({error})") from error


@contextmanager
def open_picture(file: File) -> Iterator[Image.Image]:
    """Open a PNG or JPEG for other things than its gray values: masks, tags. Use it with `with`.

    Raises:
        UserError: also for whatever goes wrong with the pixels inside of the `with`.
    """
    loaded, kind = load_file(file, STORED)
    with naming(loaded):
        if kind == "PNG":
            _check_png(loaded.getvalue(), loaded)
        with Image.open(loaded, formats=[kind]) as image:
            check_size(*image.size, loaded)
            yield image


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height of a stored picture, upright, from the head of its file.

    Raises:
        UserError: no PNG or JPEG.
    """
    with naming(path), Image.open(path, formats=STORED) as image:
        return upright_size(image)


def picture_sizes(stated: pd.DataFrame, paths: Sequence[str]) -> NDArray[np.int64]:
    """(k, 2) widths and heights, as a table states them or the heads of the files; 0 where nobody says.

    Args:
        stated: k rows with width and height; empty where they are not known.
        paths: k files or URLs.
    """
    numbers = stated[["width", "height"]].apply(pd.to_numeric, errors="coerce").astype(float).fillna(0)
    sizes: NDArray[np.int64] = numbers.to_numpy().round().astype(np.int64)
    for place in np.flatnonzero((sizes <= 0).any(axis=1)).tolist():
        sizes[place] = 0
        with suppress(UserError):  # of a URL; else reading it will say what is wrong
            sizes[place] = image_size(paths[place])
    return sizes


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of an open picture once it is turned by its EXIF orientation."""
    width, height = image.size
    return (height, width) if image.getexif().get(_ORIENTATION) in _TURNED else (width, height)


@contextmanager
def naming(file: object) -> Iterator[None]:
    """Whatever a decoder says of a bad file becomes one message with its name."""
    try:
        yield
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise UserError(f"{file}: more pixels than the bound {MAX_PIXELS}") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{file}: unreadable image (its header is damaged)") from error
    except Exception as error:  # decoders meet hostile bytes with errors of every type
        raise UserError(f"{file}: unreadable image ({one_line(error)})") from error


@contextmanager
def silent_decoders() -> Iterator[None]:
    """What decoders say of a readable file is not printed; not for threads, which share one filter of warnings."""
    logger = logging.getLogger("pydicom")
    disabled, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logger.disabled = disabled


def _check_png(content: bytes, file: object) -> None:
    """Size, checksums and end of a PNG: Pillow does not check all of them."""
    if content[12:16] != b"IHDR" or len(content) < 33:
        raise UserError(f"{file}: truncated PNG (no header)")
    check_size(int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big"), file)
    if content[24] == 16 and content[25] != 0:  # Pillow would keep the upper 8 bits: of 12 in use, the upper 4
        raise UserError(f"{file}: PNG of 16-bit colour or with alpha; convert it to 16-bit gray first")
    view, start, name = memoryview(content), len(_PNG), b""
    while name != b"IEND":
        end = start + 12 + int.from_bytes(view[start : start + 4], "big")
        if start + 12 > len(content) or end > len(content):
            raise UserError(f"{file}: truncated PNG (ends after {len(content)} bytes, before its IEND)")
        name = bytes(view[start + 4 : start + 8])
        if zlib.crc32(view[start + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise UserError(f"{file}: damaged PNG (wrong checksum of {name.decode('latin-1')!r} at byte {start})")
        start = end
