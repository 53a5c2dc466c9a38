"""One process at a time in a folder.

The lock is the kernel's: it ends with the process that holds it, however that ends; none is ever left over.
"""

import errno
import fcntl
import json
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from cmcgns.common.array_cache import cache_folder
from cmcgns.common.errors import UserError
from cmcgns.common.files import explained, is_left_over, is_same_file, make_folder

logger = logging.getLogger(__name__)

LOCK = ".lock"
_DEEPEST = 3  # folders that verbs make below one another; elsewhere there may be a whole disk below
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
_held: set[int] = set()


class FolderInUse(UserError):
    """Another process works in a folder; says which one."""


@contextmanager
def claimed(folder: Path, work: str, option: str = "--out") -> Iterator[None]:
    """Sole use of a folder while the block runs: it is made, and rid of temporary files of writers that are gone.

    Args:
        folder: to be written into.
        work: the verb, for whoever comes meanwhile.
        option: which names the folder, for the message; empty: none.

    Raises:
        FolderInUse: another process works in the folder.
        UserError: it cannot be made, or not be written to.
    """
    make_folder(folder, option)
    file = folder / LOCK
    with explained(file):
        descriptor = _lock(file)
    _held.add(descriptor)
    try:
        with explained(file):
            os.pwrite(descriptor, _holder(work).ljust(200), 0)
        _remove_left_overs(folder)
        yield
    finally:
        if descriptor in _held:
            with suppress(OSError):
                file.unlink(missing_ok=True)  # while the lock is held: nobody else can have the name meanwhile
            _held.discard(descriptor)
            os.close(descriptor)


def holds_anything(folder: Path) -> bool:
    """Whether there is more in a folder than a claim on it, and what a write that was cut off has left."""
    return any(path.name != LOCK and not is_left_over(path) for path in folder.iterdir())


def _remove_left_overs(folder: Path) -> None:
    """Remove what writers that are gone have left in the folder, but not below another claim, nor in the cache."""
    cache = cache_folder().resolve()
    for place, folders, names in os.walk(folder):
        depth = len(Path(place).relative_to(folder).parts)
        if (depth and LOCK in names) or Path(place).resolve() == cache:
            folders.clear()  # others may be writing there
            continue
        if depth == _DEEPEST:
            folders.clear()
        for path in (Path(place, name) for name in names):
            if is_left_over(path):
                with suppress(OSError):
                    path.unlink()


def _lock(file: Path) -> int:
    """An open descriptor of the file that holds its lock."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_same_file(descriptor, file):
                return descriptor
        except BlockingIOError:
            told = os.pread(descriptor, 200, 0)
            os.close(descriptor)
            raise FolderInUse(f"{file.parent}: {_told(told)}; wait for it, or choose another folder") from None
        except OSError as error:
            if error.errno in _NO_LOCKS:
                logger.warning(
                    "%s: this disk has no locks; see to it that no second process works there", file.parent
                )
                return descriptor
            os.close(descriptor)
            raise
        os.close(descriptor)  # its holder has just removed it


def _holder(work: str) -> bytes:
    since = datetime.now(UTC).isoformat(sep=" ", timespec="seconds")
    return json.dumps({"work": work, "process": os.getpid(), "host": platform.node()[:60], "since": since}).encode()


def _told(content: bytes) -> str:
    try:
        holder = json.loads(content)
        return "`cmcgns {work}` (process {process} on {host}, since {since}) works in it".format(**holder)
    except (ValueError, KeyError, TypeError):  # it has the lock, but has not yet said who it is
        return "another process works in it"


def _let_go() -> None:
    """A forked child (a loader's worker) does not keep the lock of a parent that is gone."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)
