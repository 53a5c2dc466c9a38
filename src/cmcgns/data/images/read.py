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

from cmcgns.common.array_cache import MappedArray, cache_folder, cached_array
from cmcgns.common.errors import UserError
from cmcgns.common.files import file_stamp
from cmcgns.common.processes import in_threads
from cmcgns.common.remote import NamedBytes
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
_CACHE_VERSION = 2  # to be raised whenever `read_image` gives other pixels

Picture: TypeAlias = File | NDArray[Any] | Image.Image
"""PNG, JPEG or DICOM by path, URL or content; (H, W) or (H, W, 3) uint8, (H, W) uint16; or a Pillow image."""


@dataclass(frozen=True)
class Decoded:
    """A picture as a viewer would show it, black 0.

    Attributes:
        pixels: (H,W) uint8 or uint16.
        width: of the source picture, upright; more than W where a reduced decode was allowed.
        height: of the source picture, upright.
        tags: what the file says beside the pixels: `format`, for a 16-bit PNG `highest` (the largest value in it),
            for DICOM see `cmcgns.data.images.dicom.read_dicom`.
    """

    pixels: Gray
    width: int
    height: int
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def high(self) -> int:
        """The value that means white by the format: 255 or 65535."""
        return int(np.iinfo(self.pixels.dtype).max)

    @property
    def white(self) -> int:
        """The value that means white by the bits in use; a 16-bit PNG often keeps 10 to 14 bits: 255, 511, … 65535.

        Not the brightest pixel's, for then a marker in the corner would change the contrast of the whole radiograph.
        """
        return (1 << max(8, int(self.tags["highest"]).bit_length())) - 1 if "highest" in self.tags else self.high


def scale_values(pixels: Gray, high: int, white: int) -> Gray:
    """Pixels whose white is `white` (255: uint8, else uint16), rounded to the nearest; above `high` is white."""
    if high == white:
        return pixels
    values = (np.minimum(pixels, high).astype(np.uint64) * white + high // 2) // high
    return values.astype(np.uint8) if white == 255 else values.astype(np.uint16)


def encode_image(pixels: Gray, high: int, lossless: bool = False) -> bytes:
    """A gray picture as a file's content.

    Args:
        pixels: (H,W) uint8 or uint16.
        high: the value that means white.
        lossless: PNG of as many bits as the pixels have (16: white is 65535), else 8-bit JPEG of quality 95.
    """
    buffer = io.BytesIO()
    if lossless:
        white = 255 if pixels.dtype == np.uint8 else 65535
        Image.fromarray(scale_values(pixels, high, white)).save(buffer, "PNG")
    else:
        Image.fromarray(scale_values(pixels, high, 255)).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def decode_image(picture: Picture, at_least: int | None = None, bits: int = 8) -> Decoded:
    """Decode a radiograph at its full size.

    - PNG: 1 to 16 bit, gray, colour or palette, with or without alpha (which is dropped). 16-bit gray stays uint16
      with white at 65535, as the format defines it: nothing is stretched, so a file that keeps 12 bits in 16 comes
      out dark, and `Decoded.white` tells. 16-bit colour is read as 8-bit.
    - JPEG: gray or colour, upright by its EXIF orientation; CMYK is refused.
    - DICOM: rescale, VOI and MONOCHROME1 applied at full size, see `cmcgns.data.images.dicom`.

    Args:
        picture: see :data:`Picture`.
        at_least: a JPEG may come reduced by 2, 4 or 8 as long as its long side has so many pixels (much faster).
        bits: 8 or 16, of what DICOM becomes.

    Raises:
        UserError: missing, unreadable, truncated, oversized or of another format; names file and rule.
    """
    with silent_decoders():
        reduced = None if at_least is None else (lambda width, height: scaled_size(width, height, at_least))
        decoded = _decode(picture, reduced, bits, FORMATS)
    if decoded.tags.get("colours") == "CMYK":
        raise UserError(f"{picture}: CMYK JPEG; convert it to gray or RGB first")
    return decoded


def read_image(picture: Picture, size: int, formats: tuple[str, ...] = FORMATS) -> Pixels:
    """One radiograph as encoders have theirs: gray, long side to `size`, centred on a black square.

    Args:
        picture: see :data:`Picture`; black is 0, an EXIF orientation is honoured.
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
    pixels = scale_values(decoded.pixels, decoded.white, 255)
    return fit_in_square(pixels.astype(np.uint8, copy=False), size), (decoded.width, decoded.height)


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
    digest = hashlib.blake2b(f"{_CACHE_VERSION}\n".encode(), digest_size=12)
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


def gray_of(image: Image.Image) -> Gray:
    """An open picture, turned upright in place, as (H, W) gray values; uint16 where it has more than 8 bits."""
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I"):
        return np.asarray(image).astype(np.uint16)
    if image.mode == "P":  # Pillow warns of palettes with transparency on any other way
        image = image.convert("RGBA")
    return np.asarray(image if image.mode == "L" else image.convert("L"))


def _decode(
    picture: Picture, reduced: Callable[[int, int], tuple[int, int]] | None, bits: int, formats: tuple[str, ...]
) -> Decoded:
    """`reduced`: from a JPEG's width and height to those that it must have at least."""
    if isinstance(picture, np.ndarray):
        return _from_pillow(_checked_array(picture), {})
    if isinstance(picture, Image.Image):
        if picture.mode in ("F", "I"):
            raise UserError(
                f"a Pillow image of mode {picture.mode} does not say what is white: give 8 bits (L) or 16 bits (I;16)"
            )
        check_size(*picture.size, "the Pillow image")
        with naming("the Pillow image"):
            return _from_pillow(picture.copy(), {})
    if not isinstance(picture, str | Path | NamedBytes):
        raise UserError(f"a picture is a path, an array or a Pillow image, not {type(picture).__name__}")
    file, kind = load_file(picture, formats)
    if kind == "DICOM":
        with silent_decoders(), naming(file):
            pixels, tags = read_dicom(file.getvalue(), Path(str(file)), bits)
        height, width = pixels.shape
        return Decoded(pixels, width, height, {"format": kind} | tags)
    with open_picture(file) as image:
        tags = {"format": kind} | ({"colours": "CMYK"} if image.mode in ("CMYK", "YCCK") else {})
        size = upright_size(image)
        if reduced is not None:
            image.draft("L", reduced(*image.size))  # nothing but JPEG heeds it
        return _from_pillow(image, tags, size)


def _from_pillow(image: Image.Image, tags: dict[str, str], size: tuple[int, int] | None = None) -> Decoded:
    width, height = size or upright_size(image)
    pixels = gray_of(image)
    highest = {} if pixels.dtype == np.uint8 else {"highest": str(pixels.max())}
    return Decoded(pixels, width, height, tags | highest)


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
