"""Hashes of images and masks as they enter a result, remembered as long as the files are the same ones.

A hundred thousand images of 256 pixels are 7 GB, which takes half a minute to read and hash: too long for a second
call that has nothing to do, and for each of several protocols on the same data.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from cmcgns.common.array_cache import cache_folder
from cmcgns.common.files import file_stamp, sha256, write_bytes
from cmcgns.data.paths import image_file
from cmcgns.evaluation.image_set import ImageSet

_BLOCK = 1024  # images hashed at once


def pixels_sha256(images: ImageSet) -> str:
    """Hash of all pixels; remembered by name, size and time of the file that they are mapped from."""

    def compute() -> str:
        digest = hashlib.sha256(f"{images.pixels.shape}".encode())
        for start in range(0, len(images), _BLOCK):
            digest.update(images.pixels[start : start + _BLOCK].tobytes())
        return digest.hexdigest()

    file = getattr(images.pixels, "filename", None)
    stamp = file_stamp(file) if file else ()
    return _remembered([f"{file} {stamp}"], compute) if stamp else compute()


def masks_sha256(images: ImageSet) -> str:
    """Hash of all mask files, by their content; remembered by their names, sizes and times."""
    files = [Path(image_file(images.folder, path)) if path else None for path in images.frame["mask_path"]]

    def compute() -> str:
        digest = hashlib.sha256()
        for file in files:
            digest.update(sha256(file).encode() if file and file.is_file() else b"none")
        return digest.hexdigest()

    return _remembered((f"{file} {file_stamp(file) if file else ()}" for file in files), compute)


def _remembered(stamps: Iterable[str], compute: Callable[[], str]) -> str:
    key = hashlib.sha256("\n".join(stamps).encode()).hexdigest()
    file = cache_folder() / "evaluation" / "content" / key[:2] / key
    try:
        found = file.read_text("ascii")
    except (OSError, ValueError):
        found = ""
    if not re.fullmatch("[0-9a-f]{64}", found):
        found = compute()
        write_bytes(file, found.encode(), durable=False)
    return found
