"""Radiographs from files: decoded and resized once, kept as one memory-mapped array."""

import hashlib
import json
import mmap
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from cmcgns.common.errors import UserError
from cmcgns.common.files import write_json
from cmcgns.common.remote import open_image

MAX_PIXELS = 89_000_000  # Pillow calls more a decompression bomb; the largest digitised films have 40 million
_CACHE_VERSION = 2  # to be raised whenever `read_image` gives other pixels
Pixels = NDArray[np.uint8]


def read_image(path: Path | BinaryIO, size: int) -> Pixels:
    """Decode a PNG or JPEG (8 or 16 bit) as gray, long side to `size`, centred on a black square.

    An EXIF orientation is honoured: the image comes as viewers show it.

    Args:
        path: file, or an open one (`cmcgns.common.remote.NamedBytes`: named in messages).
        size: side of the square.

    Returns:
        (size, size) uint8.

    Raises:
        UserError: missing, unreadable, truncated or oversized file; names the path.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UserError(f"{path}: {image.width}×{image.height} pixels are more than the bound {MAX_PIXELS}")
            image.draft("L", (size, size))  # JPEG: decode at the nearest larger eighth
            ImageOps.exif_transpose(image, in_place=True)
            gray = _to_gray(image)
    except FileNotFoundError:
        raise UserError(f"{path}: no such image") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: unreadable image ({error})") from error
    return _fit(gray, size)


def white_of(highest: int) -> int:
    """The value that means white in a picture of 16 bits whose brightest pixel is `highest`: 255, 511, … 65535."""
    return (1 << max(8, highest.bit_length())) - 1


def _to_gray(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float32)
        low, high = float(values.min()), float(values.max())
        if image.mode != "F" and low >= 0:
            # White is the largest value of the bits in use (12 in 16 are common), as in `prepare`: not the brightest
            # pixel, for then a marker in the corner would change the contrast of the whole radiograph.
            low, high = 0.0, float(white_of(int(high)))
        return Image.fromarray(((values - low) * (255 / max(high - low, 1))).round().astype(np.uint8))
    if image.mode == "P":  # Pillow warns of palettes with transparency on any other way
        image = image.convert("RGBA")
    return image.convert("L")


def place_in_square(width: int, height: int, size: int) -> tuple[float, int, int]:
    """How `read_image` places a picture: what to multiply its pixels with, then what to add to x and to y."""
    scale = size / max(width, height)
    left, top = ((size - max(1, round(side * scale))) // 2 for side in (width, height))
    return scale, left, top


def _fit(gray: Image.Image, size: int) -> Pixels:
    scale, left, top = place_in_square(*gray.size, size)
    width, height = (max(1, round(side * scale)) for side in gray.size)
    if gray.size != (width, height):
        gray = gray.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=3.0)
    square = np.zeros((size, size), dtype=np.uint8)
    square[top : top + height, left : left + width] = np.asarray(gray)
    return square


def centre_crop(pixels: Pixels, size: int) -> Pixels:
    """(n, S, S) -> (n, size, size), as in evaluation."""
    first = (pixels.shape[1] - size) // 2
    inside = slice(first, first + size)
    return np.ascontiguousarray(pixels[:, inside, inside])


def cache_folder() -> Path:
    """Where resized images are kept: `CMCGNS_CACHE`, else the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("CMCGNS_CACHE") or Path(base) / "cmcgns")


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
    file = cache_folder() / f"images-{size}-{_fingerprint(paths)}.npy"
    unread = file.with_suffix(".unread.json")  # positions to try again: access may be granted, a server may be back
    if not file.is_file():
        errors = _build(file, unread, paths, size, progress or (lambda _: None))
    elif positions := _recall(unread):
        array = np.load(file, mmap_mode="r+", allow_pickle=False)
        errors = _fill(array, paths, size, positions, lambda _: None)
        _remember(unread, errors)
    else:
        errors = {}
    return map_images(file), errors


def _build(
    file: Path, unread: Path, paths: Sequence[str], size: int, progress: Callable[[int], None]
) -> dict[int, str]:
    """Write a new array; returns position -> message for the images that cannot be read."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    try:
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=(len(paths), size, size))
        errors = _fill(array, paths, size, range(len(paths)), progress)
        _remember(unread, errors)  # before the array has its name: an array alone is one without gaps
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    return errors


def _recall(unread: Path) -> list[int]:
    try:
        return [int(position) for position in json.loads(unread.read_text("utf-8"))]
    except FileNotFoundError:  # also when another process has just read the last of them
        return []


def _remember(unread: Path, errors: dict[int, str]) -> None:
    if errors:
        write_json(unread, list(errors))
    else:
        unread.unlink(missing_ok=True)


def map_images(file: Path) -> Pixels:
    """The array without its content in memory; batches read single images from all over it, so no read-ahead."""
    array: np.memmap[Any, np.dtype[np.uint8]] = np.load(file, mmap_mode="r", allow_pickle=False)
    if isinstance(array.base, mmap.mmap) and hasattr(mmap, "MADV_RANDOM"):
        array.base.madvise(mmap.MADV_RANDOM)
    return array


def _fill(
    array: "np.memmap[Any, Any]",
    paths: Sequence[str],
    size: int,
    positions: Sequence[int],
    progress: Callable[[int], None],
) -> dict[int, str]:
    """Read the images of some positions into an array; returns position -> message for those that cannot be read."""
    errors: dict[int, str] = {}

    def read_one(position: int) -> None:
        try:
            array[position] = read_image(open_image(paths[position]), size)
        except UserError as error:
            errors[position] = str(error)

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside the interpreter lock
        for _ in pool.map(read_one, positions):
            progress(1)
    array.flush()
    return dict(sorted(errors.items()))


def _fingerprint(paths: Sequence[str]) -> str:
    digest = hashlib.blake2b(f"{_CACHE_VERSION}\n".encode(), digest_size=12)
    for path in paths:
        try:
            stat = Path(path).stat()
            digest.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        except OSError:  # reading it will say what is wrong
            digest.update(f"{path}\n".encode())
    return digest.hexdigest()
