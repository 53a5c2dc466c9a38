"""Radiographs from files: decoded and resized once, kept as one memory-mapped array."""

import hashlib
import mmap
import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from cmcgns.common.array_cache import MappedArray, cache_folder, cached_array
from cmcgns.common.errors import UserError
from cmcgns.common.files import file_stamp
from cmcgns.data.images.files import STORED
from cmcgns.data.images.place import Pixels
from cmcgns.data.images.read import read_image

_CACHE_VERSION = 2  # to be raised whenever `read_image` gives other pixels


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
    errors: dict[int, str] = {}

    def fill(array: MappedArray, rows: Sequence[int]) -> Collection[int]:
        def read_one(row: int) -> None:
            try:
                array[row] = read_image(paths[row], size, STORED)
            except UserError as error:
                errors[row] = str(error)

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside the interpreter lock
            for _ in pool.map(read_one, rows):
                if progress:
                    progress(1)
        return errors

    pixels = cached_array(file, (len(paths), size, size), np.uint8, fill)
    return without_read_ahead(pixels), dict(sorted(errors.items()))


def without_read_ahead(array: MappedArray) -> MappedArray:
    """The same array; batches read single images from all over it, so the pages around them are not read too."""
    if isinstance(array.base, mmap.mmap) and hasattr(mmap, "MADV_RANDOM"):
        array.base.madvise(mmap.MADV_RANDOM)
    return array


def _fingerprint(paths: Sequence[str]) -> str:
    digest = hashlib.blake2b(f"{_CACHE_VERSION}\n".encode(), digest_size=12)
    for path in paths:
        digest.update(("\0".join(map(str, (path, *file_stamp(path)))) + "\n").encode())
    return digest.hexdigest()
