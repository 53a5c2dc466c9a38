"""A decoder in a process of its own, for libraries that end the whole process at damaged input."""

import mmap
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmcgns.common.errors import UserError

_DAMAGE = (
    "premature end",
    "bad Huffman",
    "Bogus",
    "Invalid",
)  # libjpeg says so, and hands out a picture all the same


def decode_apart(
    decode: Callable[[], NDArray[Any]], shape: tuple[int, ...], dtype: np.dtype[Any], path: Path
) -> NDArray[Any]:
    """What `decode` returns, called in a forked process (a few milliseconds); the caller survives whatever happens.

    Args:
        decode: its modules should be imported already.
        shape: of its result.
        dtype: of its result.
        path: named in messages.

    Raises:
        UserError: the decoder failed, crashed, or complained of damage on its error output.
    """
    size = int(np.prod(shape)) * dtype.itemsize
    with tempfile.TemporaryFile() as messages, mmap.mmap(-1, size) as shared:
        child = os.fork()
        if child == 0:
            _decode_and_exit(decode, shared, messages.fileno())
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        messages.seek(0)
        said = " ".join(messages.read(2000).decode("utf-8", "replace").split())
        if status < 0:
            raise UserError(f"{path}: damaged pixels (the decoder crashed: {said[:200]})")
        if status > 0 or any(word in said for word in _DAMAGE):
            raise UserError(f"{path}: damaged pixels ({said[:200]})")
        return np.frombuffer(shared[:], dtype).reshape(shape)


def _decode_and_exit(decode: Callable[[], NDArray[Any]], shared: mmap.mmap, messages: int) -> None:
    """The child's whole life: no handler of the parent may run in it, so it ends by `_exit`."""
    code = 1
    try:
        os.dup2(messages, 2)
        values = np.ascontiguousarray(decode())
        if values.nbytes == len(shared):
            shared[:] = values.tobytes()
            code = 0
    except BaseException as error:
        os.write(2, str(error).encode())
    finally:
        os._exit(code)
