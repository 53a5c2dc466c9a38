"""Files that are either whole or not there."""

import hashlib
import json
import os
import secrets
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmcgns.common.errors import UserError
from cmcgns.common.processes import in_threads


def write_atomically(path: Path, write: Callable[[Path], object], durable: bool = True) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place.

    Args:
        path: the file.
        write: is called with the temporary file.
        durable: the content reaches the disk before the name does, so that a crash at any moment leaves the old file
            or the new. Without it a killed process still leaves one of the two, but a power failure may leave an
            empty file: for thousands of files that can be made again, waiting for the disk takes most of the time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Process numbers alone repeat among machines and containers that share a folder.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        write(temporary)
        temporary.chmod(0o666 & ~_umask())  # safetensors writes files that only their owner can read
        if durable:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if not durable:
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_text(path: Path, text: str) -> None:
    """Write text atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, "utf-8"))


def write_bytes(path: Path, content: bytes, durable: bool = True) -> None:
    """Write bytes atomically; `durable` as in `write_atomically`."""
    write_atomically(path, lambda temporary: temporary.write_bytes(content), durable)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, indented for people."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n")


def write_arrays(
    path: Path, arrays: Mapping[str, NDArray[Any]], *, compress: bool = False, durable: bool = True
) -> None:
    """Write arrays (no objects) as npz atomically; `durable` as in `write_atomically`."""
    save = np.savez_compressed if compress else np.savez

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:  # given a name, numpy would add .npz to it
            save(stream, allow_pickle=False, **arrays)

    write_atomically(path, write, durable)


def read_arrays(path: Path, *names: str) -> list[NDArray[Any]] | None:
    """Arrays of an npz that may be made again; None: there is no such file, it is torn, or has not all of them."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            return [stored[name] for name in names]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def inside(root: Path, path: Path) -> Path:
    """The real file behind a path, which must lie below the root.

    Raises:
        UserError: a symbolic link or `..` leads elsewhere.
    """
    real_root, real = (Path(os.path.realpath(place)) for place in (root, path))
    if not real.is_relative_to(real_root):
        raise UserError(f"{path}: leads out of {root} (to {real}); copy the file into the folder")
    return real


def file_stamp(path: Path | str) -> tuple[int, int] | tuple[()]:
    """Size and time of the last change of a file: other ones mean another content; () for a URL or a missing file."""
    try:
        stat = Path(path).stat()
    except (OSError, ValueError):  # reading it will say what is wrong
        return ()
    return stat.st_size, stat.st_mtime_ns


def sha256(path: Path) -> str:
    """Hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_files(paths: Sequence[str], progress: Callable[[int], None] | None = None) -> list[str]:
    """Hash of every file; empty for URLs and for what is not there (a member of a shard).

    Args:
        paths: files or URLs.
        progress: called with the number of files done since the last call.
    """

    def one(path: str) -> str:
        try:
            return sha256(Path(path))
        except OSError:
            return ""

    return in_threads(one, paths, progress)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
