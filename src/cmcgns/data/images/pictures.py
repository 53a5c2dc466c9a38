"""Radiographs in whatever form a Python user has them: files, URLs, DICOM, arrays, Pillow images."""

import io
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from cmcgns.common.errors import UserError
from cmcgns.common.remote import NamedBytes, open_image
from cmcgns.data.images.cache import MAX_PIXELS, Pixels, read_image
from cmcgns.data.images.dicom import looks_like_dicom

Picture: TypeAlias = str | Path | NDArray[Any] | Image.Image
"""PNG, JPEG or DICOM by path or URL; (H, W) or (H, W, 3) uint8, (H, W) uint16; or a Pillow image."""
_HEADER = 132  # bytes up to the mark of a DICOM file
_ROTATED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_ORIENTATION = 0x0112


def read_picture(picture: Picture, size: int) -> Pixels:
    """One radiograph as the data sets have theirs: gray, long side to `size`, centred on a black square.

    Args:
        picture: see :data:`Picture`; black is 0.
        size: side of the square.

    Returns:
        (size, size) uint8.

    Raises:
        UserError: unreadable, of another type or form, or DICOM without pydicom.
    """
    return read_image(_as_file(picture), size)


def picture_size(picture: Picture) -> tuple[int, int]:
    """Width and height of a picture as it is shown, upright; arguments and errors of :func:`read_picture`."""
    file = _as_file(picture)
    try:
        with Image.open(file) as image:
            width, height = image.size
            rotated = image.getexif().get(_ORIENTATION) in _ROTATED
    except FileNotFoundError:
        raise UserError(f"{file}: no such image") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{file}: unreadable image ({error})") from error
    return (height, width) if rotated else (width, height)


def _as_file(picture: Picture) -> Path | NamedBytes:
    """What `read_image` opens; pictures in memory and DICOM become an uncompressed PNG first."""
    if isinstance(picture, Image.Image):
        return _from_pillow(picture)
    if isinstance(picture, np.ndarray):
        return _from_array(picture)
    if not isinstance(picture, str | Path):
        raise UserError(f"a picture is a path, an array or a Pillow image, not {type(picture).__name__}")
    file = open_image(picture)
    if not _is_dicom(file):
        return file
    from cmcgns.data.images.decode import decode_image

    if not isinstance(file, Path):
        raise UserError(f"{file}: DICOM is read from files only; download it first")
    return _as_png(Image.fromarray(decode_image(file).pixels), str(file))


def _is_dicom(file: Path | NamedBytes) -> bool:
    if isinstance(file, NamedBytes):
        return looks_like_dicom(file.getvalue()[:_HEADER])
    if not file.is_file():
        return False  # reading it will say so
    with file.open("rb") as opened:
        return looks_like_dicom(opened.read(_HEADER))


def _from_pillow(image: Image.Image) -> NamedBytes:
    if image.mode == "F":
        raise UserError("a Pillow image of mode F does not say what is white: give 8 bits (L) or 16 bits (I;16)")
    if image.width * image.height > MAX_PIXELS:
        raise UserError(f"{image.width}×{image.height} pixels are more than the bound {MAX_PIXELS}")
    upright = ImageOps.exif_transpose(image)
    if not upright.mode.startswith("I"):
        upright = (upright.convert("RGBA") if upright.mode == "P" else upright).convert("L")
    return _as_png(upright, "the Pillow image")


def _from_array(values: NDArray[Any]) -> NamedBytes:
    gray, colour = values.ndim == 2, values.ndim == 3 and values.shape[-1] == 3
    known = (values.dtype == np.uint8 and (gray or colour)) or (values.dtype == np.uint16 and gray)
    if not known or values.size == 0:
        raise UserError(
            f"an array is (H, W) or (H, W, 3) uint8, or (H, W) uint16, not {values.shape} {values.dtype}; "
            "scale other values to 0..255 yourself: they do not say what is white"
        )
    return _from_pillow(Image.fromarray(np.ascontiguousarray(values)))


def _as_png(image: Image.Image, name: str) -> NamedBytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=0)
    return NamedBytes(buffer.getvalue(), name)
