"""Radiographs in whatever form they come (files, URLs, bytes, arrays, Pillow images) as one gray array.

Those of many files are decoded and resized once, and kept as one memory-mapped array.

Training, `prepare`, `check`, evaluation and a user's own calls all read by this module, so that a picture has the
same gray values for all of them.
"""

import hashlib
import io
import mmap
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from cmcgns.common.array_cache import MappedArray, cache_folder, cached_array
from cmcgns.common.errors import UserError
from cmcgns.common.files import file_stamp
from cmcgns.common.processes import in_threads
from cmcgns.common.remote import NamedBytes
from cmcgns.data.images.brightness import MARK, gray_of_values
from cmcgns.data.images.dicom import read_dicom
from cmcgns.data.images.files import (
    FORMATS,
    STORED,
    File,
    load_file,
    naming,
    open_picture,
    silent_decoders,
    upright_size,
)
from cmcgns.data.images.place import Gray, Pixels, check_size, fit_in_square, scaled_size

JPEG_QUALITY = 95
_CACHE_VERSION = 3  # to be raised whenever `read_image` gives other pixels

Picture: TypeAlias = File | NDArray[Any] | Image.Image
"""PNG, JPEG or DICOM by path, URL or content; (H, W) or (H, W, 3) uint8, (H, W) uint16; or a Pillow image."""


@dataclass(frozen=True)
class Decoded:
    """A picture as a viewer would show it, black 0.

    Attributes:
        pixels: (H,W) uint8 or uint16.
        width: of the source picture, upright; more than W where a reduced decode was allowed.
        height: of the source picture, upright.
        tags: what the file says beside the pixels: `format`; for DICOM see `cmcgns.data.images.dicom.read_dicom`.
    """

    pixels: Gray
    width: int
    height: int
    tags: dict[str, str] = field(default_factory=dict)


def encode_image(pixels: Gray, lossless: bool = False) -> bytes:
    """A gray picture whose brightness is final, as a file's content.

    Args:
        pixels: (H,W) uint8, or uint16 with white at 65535.
        lossless: PNG of as many bits as the pixels have, else 8-bit JPEG of quality 95 (of uint8 alone).
    """
    buffer = io.BytesIO()
    if lossless:
        text = PngInfo()
        if pixels.dtype == np.uint16:
            text.add_text(*MARK)
        Image.fromarray(pixels).save(buffer, "PNG", pnginfo=text)
    else:
        Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def decode_image(picture: Picture, at_least: int | None = None, bits: int = 8) -> Decoded:
    """Decode a radiograph at its full size.

    - PNG: 1 to 8 bit, gray, colour or palette, with or without alpha (which is dropped); gray of 16 bit by the rule
      of `cmcgns.data.images.brightness`; 16-bit colour or alpha is refused. The first picture of an animated file.
    - JPEG: gray or colour.
    - PNG and JPEG are turned upright by their EXIF orientation.
    - DICOM: rescale, VOI and MONOCHROME1 applied at full size, see `cmcgns.data.images.dicom`.

    Args:
        picture: see :data:`Picture`.
        at_least: a JPEG may come reduced by 2, 4 or 8 as long as its long side has so many pixels (much faster).
        bits: 8 or 16, of what DICOM and 16-bit pictures become.

    Raises:
        UserError: missing, unreadable, truncated, oversized or of another format; names file and rule.
    """
    with silent_decoders():
        reduced = None if at_least is None else (lambda width, height: scaled_size(width, height, at_least))
        return _decode(picture, reduced, bits, FORMATS)


def read_image(picture: Picture, size: int, formats: tuple[str, ...] = FORMATS) -> Pixels:
    """One radiograph as encoders have theirs: gray, long side to `size`, centred on a black square.

    Args:
        picture: see :data:`Picture`; its brightness and orientation as :func:`decode_image` says.
        size: side of the square.
        formats: that a file may have.

    Returns:
        (size, size) uint8.

    Raises:
        UserError: as :func:`decode_image`; or an array or image that does not say what is white.
    """
    return read_with_size(picture, size, formats)[0]


def read_with_size(picture: Picture, size: int, formats: tuple[str, ...] = FORMATS) -> tuple[Pixels, tuple[int, int]]:
    """What :func:`read_image` returns, and the picture's own width and height, upright."""
    decoded = _decode(picture, lambda *_: (size, size), 8, formats)  # JPEG: at the nearest larger eighth
    return fit_in_square(decoded.pixels.astype(np.uint8, copy=False), size), (decoded.width, decoded.height)


def pixel_digest() -> hashlib.blake2b:
    """A digest for names of arrays of what `read_image` gives; it begins with the rule by which pixels are made."""
    return hashlib.blake2b(f"{_CACHE_VERSION}\n".encode(), digest_size=12)


def load_images(
    paths: Sequence[str], size: int, progress: Callable[[int], None] | None = None
) -> tuple[Pixels, dict[int, str]]:
    """All images as one read-only array, built on first use and found again afterwards.

    The array's name depends on every path, file size and modification time, so a changed file is read anew.
    Unreadable images stay black in it, and every call tries them again.

    Args:
        paths: image files or URLs.
        size: side of the squares.
        progress: called with the number of images done since the last call.

    Returns:
        (n, size, size) uint8 memory map, and position -> message for unreadable images (black in the array).
    """
    digest = pixel_digest()
    for path in paths:
        digest.update(("\0".join(map(str, (path, *file_stamp(path)))) + "\n").encode())
    file = cache_folder() / f"images-{size}-{digest.hexdigest()}.npy"
    errors: dict[int, str] = {}

    def fill(array: MappedArray, rows: Sequence[int]) -> Collection[int]:
        def read_one(row: int) -> None:
            try:
                array[row] = read_image(paths[row], size, STORED)
            except UserError as error:
                errors[row] = str(error)

        in_threads(read_one, rows, progress)
        return errors

    pixels = cached_array(file, (len(paths), size, size), np.uint8, fill)
    return without_read_ahead(pixels), dict(sorted(errors.items()))


def without_read_ahead(array: MappedArray) -> MappedArray:
    """The same array; batches read single images from all over it, so the pages around them are not read too."""
    if isinstance(array.base, mmap.mmap) and hasattr(mmap, "MADV_RANDOM"):
        array.base.madvise(mmap.MADV_RANDOM)
    return array


def gray_of(image: Image.Image, bits: int = 8) -> Gray:
    """An open picture, turned upright in place, as (H, W) gray values.

    Args:
        image: of a file, or made of an array.
        bits: 8 or 16, of the result where the picture has more than 8.
    """
    texts = dict(image.info)
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I"):
        return gray_of_values(np.asarray(image).astype(np.uint16), bits, texts)
    if image.mode == "P":  # Pillow warns of palettes with transparency on any other way
        image = image.convert("RGBA")
    return np.asarray(image if image.mode == "L" else image.convert("L"))


def _decode(
    picture: Picture, reduced: Callable[[int, int], tuple[int, int]] | None, bits: int, formats: tuple[str, ...]
) -> Decoded:
    """`reduced`: from a JPEG's width and height to those that it must have at least."""
    if isinstance(picture, np.ndarray):
        return _from_pillow(_checked_array(picture), bits, {})
    if isinstance(picture, Image.Image):
        if picture.mode in ("F", "I"):
            raise UserError(
                f"a Pillow image of mode {picture.mode} does not say what is white: give 8 bits (L) or 16 bits (I;16)"
            )
        check_size(*picture.size, "the Pillow image")
        with naming("the Pillow image"):
            return _from_pillow(picture.copy(), bits, {})
    if not isinstance(picture, str | Path | NamedBytes):
        raise UserError(f"a picture is a path, an array or a Pillow image, not {type(picture).__name__}")
    file, kind = load_file(picture, formats)
    if kind == "DICOM":
        with silent_decoders(), naming(file):
            pixels, tags = read_dicom(file.getvalue(), Path(str(file)), bits)
        height, width = pixels.shape
        return Decoded(pixels, width, height, {"format": kind} | tags)
    with open_picture(file) as image:
        size = upright_size(image)
        if reduced is not None:
            image.draft("L", reduced(*image.size))  # nothing but JPEG heeds it
        return _from_pillow(image, bits, {"format": kind}, size)


def _from_pillow(image: Image.Image, bits: int, tags: dict[str, str], size: tuple[int, int] | None = None) -> Decoded:
    width, height = size or upright_size(image)
    return Decoded(gray_of(image, bits), width, height, tags)


def _checked_array(values: NDArray[Any]) -> Image.Image:
    gray, colour = values.ndim == 2, values.ndim == 3 and values.shape[-1] == 3
    known = (values.dtype == np.uint8 and (gray or colour)) or (values.dtype == np.uint16 and gray)
    if not known or values.size == 0:
        raise UserError(
            f"an array is (H, W) or (H, W, 3) uint8, or (H, W) uint16, not {values.shape} {values.dtype}; "
            "scale other values to 0..255 yourself: they do not say what is white"
        )
    check_size(values.shape[1], values.shape[0], "the array")
    return Image.fromarray(np.ascontiguousarray(values))
