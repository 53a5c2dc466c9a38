"""Arrays that are computed once and kept as files, which are memory-mapped: whole, or not there.

Several processes may ask for the same array at once, on one machine or on many that share the folder: one makes it
and the others wait. Where the file system has no locks each writes a temporary file of its own, and the first that is
done gives it the name. A file ends with a mark that says which rows could not be filled, written after everything
else; without it a file is made again.
"""

import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BufferedWriter
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from numpy.lib.format import open_memmap

from cmcgns.common.files import NO_SPACE, WriteRefused, free_bytes, is_same_file, temporary_beside

logger = logging.getLogger(__name__)

MappedArray: TypeAlias = "np.memmap[Any, Any]"
Fill: TypeAlias = Callable[[MappedArray, Sequence[int]], Collection[int] | None]

_MARK = b"\ncmcgns: whole, but for rows "
_YOUNG = 60.0  # seconds: a writer that has only just begun may not hold its file yet


def cache_folder() -> Path:
    """Where everything is kept that can be computed again: `CMCGNS_CACHE`, else the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("CMCGNS_CACHE") or Path(base) / "cmcgns")


def cached_array(file: Path, shape: tuple[int, ...], dtype: npt.DTypeLike, fill: Fill) -> MappedArray:
    """The array in a file, which is made on first use, and again if it is damaged.

    Args:
        file: `.npy`; its name must depend on all that the content depends on.
        shape: (n, …).
        dtype: without objects.
        fill: called with the array, all of it zero, and the n rows to fill. Rows that it returns stay as they are,
            and the next call for the array has them, and only them, filled once more.

    Returns:
        The array, memory-mapped, read-only.

    Raises:
        WriteRefused: the folder has no room for it, or cannot be written to.
    """
    kind = np.dtype(dtype)
    while True:
        gaps = _gaps(file, shape, kind)
        if gaps is None:
            if not _make_once(file, shape, kind, fill):
                continue  # of what another process could not fill this one has to know as well
        elif gaps:
            _fill_gaps(file, gaps, fill)
        with suppress(FileNotFoundError):  # another process, which needs it no longer, has just removed it
            return open_memmap(file, mode="r")


def _gaps(file: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> list[int] | None:
    """Rows of a file that could not be filled; None: there is no such file, or it is not whole."""
    try:
        array = open_memmap(file, mode="r")
        with file.open("rb") as stream:
            stream.seek(array.offset + array.nbytes)
            mark = stream.read()
        if (array.shape, array.dtype) != (shape, dtype) or not mark.startswith(_MARK):
            return None
        return [int(row) for row in json.loads(mark.removeprefix(_MARK))]
    except (OSError, ValueError, TypeError, EOFError):
        return None


def _make_once(file: Path, shape: tuple[int, ...], dtype: np.dtype[Any], fill: Fill) -> bool:
    """Make the array, unless another process has made it since; the ranks of a run all come at once.

    Returns:
        Whether this process made it.
    """
    with _explaining(file.parent, int(np.prod(shape)) * dtype.itemsize):
        file.parent.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(file.with_name(f".{file.name}.lock")):
        if _gaps(file, shape, dtype) is not None:
            return False
        if file.exists():
            logger.warning("%s: damaged or not finished; it is made again", file)
        _make(file, shape, dtype, fill)
        return True


@contextmanager
def _one_at_a_time(lock: Path) -> Iterator[None]:
    """A block that one process at a time is in, as far as the file system and the owner of the lock allow it."""
    held = None
    with suppress(OSError):  # of another user, or there is no room: then the array says so
        held = _locked(lock)
    if held is None:
        yield
        return
    with held:
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _locked(lock: Path) -> BufferedWriter:
    """The file, with its lock: whoever had that may have removed the one that was waited for."""
    while True:
        held = lock.open("ab")
        with suppress(OSError):  # a file system without locks
            fcntl.flock(held, fcntl.LOCK_EX)
            if not is_same_file(held.fileno(), lock):
                held.close()
                continue
        return held


def _make(file: Path, shape: tuple[int, ...], dtype: np.dtype[Any], fill: Fill) -> None:
    temporary = temporary_beside(file)
    with _explaining(file.parent, int(np.prod(shape)) * dtype.itemsize):
        file.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_overs(file.parent)
        held = temporary.open("xb")
    with held:
        try:
            with suppress(OSError):  # a file system without locks: left-overs stay there
                fcntl.flock(held, fcntl.LOCK_EX)
            with _explaining(file.parent, int(np.prod(shape)) * dtype.itemsize):
                array = open_memmap(temporary, mode="w+", dtype=dtype, shape=shape)
                _reserve(held.fileno(), array.offset + array.nbytes)
            gaps = sorted(fill(array, range(shape[0])) or ())
            with _explaining(file.parent, array.nbytes):  # the mark itself may be what no longer fits
                array.flush()
                with temporary.open("ab") as end:
                    end.write(_MARK + json.dumps(gaps).encode())
                    end.flush()
                    os.fsync(end.fileno())
            others = _gaps(file, shape, dtype)
            if others is None or not set(others) <= set(gaps):
                temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)


def _fill_gaps(file: Path, gaps: list[int], fill: Fill) -> None:
    with _explaining(file.parent, 0):
        array = open_memmap(file, mode="r+")
    left = sorted(fill(array, gaps) or ())
    array.flush()
    if left != gaps:
        text = json.dumps(left).ljust(len(json.dumps(gaps))).encode()  # at no moment shorter than a reader expects
        with file.open("rb+") as stream:
            os.pwrite(stream.fileno(), _MARK + text, array.offset + array.nbytes)


def _reserve(descriptor: int, size: int) -> None:
    """Have the disk set the space aside: when it is full, writing to a memory map ends the process without a word."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno in NO_SPACE:  # else a file system that cannot set space aside
            raise


def _remove_left_overs(folder: Path) -> None:
    """Temporary and lock files of processes, which lock them as long as they live, that are gone."""
    for path in chain(folder.glob(".*.npy.*.tmp"), folder.glob(".*.npy.lock")):
        with suppress(OSError):  # locked, or removed by another process meanwhile
            if time.time() - path.stat().st_mtime > _YOUNG:
                with path.open("rb+") as stream:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()


@contextmanager
def _explaining(folder: Path, size: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WriteRefused(
            f"{folder}: no array of {size:,} bytes can be kept there ({error.strerror or error}; "
            f"{free_bytes(folder):,} bytes are free); make room, or set CMCGNS_CACHE to another folder"
        ) from error
