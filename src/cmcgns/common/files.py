"""Files that are either whole or not there."""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmcgns.common.errors import UserError
from cmcgns.common.processes import in_threads

_LEFT_OVER = re.compile(r"\.(.+\.)?\d+-[0-9a-f]{8}\.tmp")
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL = (*NO_SPACE, errno.EROFS)
_REFUSED = {
    errno.EACCES: "this user has no right to it",
    errno.EPERM: "this user has no right to it",
    errno.EROFS: "that disk is read-only",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EEXIST: "there is a file of that name, not a folder",
    errno.EISDIR: "there is a folder of that name, not a file",
    errno.ENOTEMPTY: "there is a folder of that name, not a file",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ENOENT: "there is no such file or folder",
    errno.EINVAL: "the name is none that this disk can hold",
    errno.ELOOP: "a link leads back to itself",
}


class WriteRefused(UserError):
    """A disk or a path does not take what is to be kept."""


def is_same_file(descriptor: int, file: Path) -> bool:
    """Whether an open file still has its name: another process may have removed it since, or made it anew."""
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


def free_bytes(place: Path) -> int:
    """Space left on the disk of a path, whose last parts need not be there yet."""
    return shutil.disk_usage(next((each for each in (place, *place.parents) if each.is_dir()), Path("/"))).free


def is_about_a_place(error: OSError) -> bool:
    """Whether it is the disk or the path that is at fault, which a user can mend."""
    return error.errno in NO_SPACE or error.errno in _REFUSED


def refused_by_disk(error: Exception) -> OSError | None:
    """What the disk or the path refused, where that is what an error says or was made from; else None."""
    cause = error if isinstance(error, OSError) else error.__cause__
    return cause if isinstance(cause, OSError) and is_about_a_place(cause) else None


def keeps_nothing(error: Exception) -> bool:
    """Whether the disk refuses what is to be kept, so that what comes next would fare no better."""
    cause = refused_by_disk(error)
    return isinstance(error, WriteRefused) or (cause is not None and cause.errno in _FULL)


def expanded(path: Path | str) -> Path:
    """The path with a user's folder for ~; as it stands where there is no such user."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path's own raises then


def explain(error: OSError, path: Path | str, use: str = "written") -> str:
    """What kept a path from being written, in one line with the way out."""
    place = Path(path)
    if error.errno in NO_SPACE:
        free = f"{free_bytes(place):,} bytes are free"
        return f"{place}: no space is left there ({free}); make room, or choose another disk"
    reason = _REFUSED.get(error.errno or 0, error.strerror or str(error))
    way_out = "; choose another place" if use == "written" else ""
    return f"{place}: cannot be {use} ({reason}){way_out}"


@contextmanager
def explained(path: Path | str) -> Iterator[None]:
    """A block that writes a path: what the disk refuses becomes a message.

    Raises:
        WriteRefused: no space, no right to write, not a folder …
    """
    try:
        yield
    except OSError as error:
        if not is_about_a_place(error):
            raise
        raise WriteRefused(explain(error, path)) from error


def make_folder(path: Path, option: str = "--out") -> None:
    """Make a folder, unless it is there, and prove that it can be written into, before any work is done for it.

    Raises:
        UserError: it cannot be made, or not be written into.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        trial = temporary_beside(path / "trial")
        trial.touch()
        trial.unlink(missing_ok=True)  # who claims the folder meanwhile takes it for a left-over
    except OSError as error:
        if not is_about_a_place(error):
            raise
        raise UserError(f"{option} {explain(error, path)}".lstrip()) from error


def temporary_beside(path: Path) -> Path:
    """A name that no other process has; process numbers alone repeat among machines that share a folder."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def is_left_over(path: Path) -> bool:
    """Whether a file's name is one of `temporary_beside`."""
    return _LEFT_OVER.fullmatch(path.name) is not None


def write_atomically(path: Path, write: Callable[[Path], object], durable: bool = True) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place.

    Args:
        path: the file.
        write: is called with the temporary file.
        durable: the content reaches the disk before the name does, so that a crash at any moment leaves the old file
            or the new. Without it a killed process still leaves one of the two, but a power failure may leave an
            empty file: for thousands of files that can be made again, waiting for the disk takes most of the time.

    Raises:
        UserError: the disk is full or refuses the file; the old file, if any, is as it was.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_beside(path)
        try:
            write(temporary)
            temporary.chmod(0o666 & ~_umask())  # safetensors writes files that only their owner can read
            if durable:
                with temporary.open("rb+") as file:
                    os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        if durable:
            _have_name_on_disk(path.parent)


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


def _have_name_on_disk(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


# What a download may leave where a file was meant to be.
_LEFT = {
    b"version https://git-lfs": "a Git LFS pointer; fetch the file itself with `git lfs pull`",
    b"<!doctype html": "a web page, probably of a log-in or an error; download the file again",
    b"<html": "a web page, probably of a log-in or an error; download the file again",
}


def not_the_file(head: bytes) -> str:
    """What stands there instead of the file, by how the content begins; empty: it may be the file."""
    begins = head[:64].lstrip().lower()
    return next((kind for start, kind in _LEFT.items() if begins.startswith(start)), "")
