"""Text files: what a file is by its content, unpacked and decoded line by line, within bounds."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from cmcgns.common.errors import UserError
from cmcgns.common.files import explain, not_the_file

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_BYTES = 2**31  # of the text, unpacked; larger tables belong into parquet
MAX_RATIO = 200  # of unpacked to packed size, above the first 16 MiB: real tables reach 30
_UNSUSPECTED = 2**24
MAX_LINE = 2**24  # characters
_BUFFER = 2**16
_GZIP = b"\x1f\x8b"
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_UNPACK = "unpack it first (gzip alone is read as it is)"
_EXPORT = "open it there and save the sheet as CSV (UTF-8)"
_FOREIGN = {
    b"PK\x03\x04": f"an Excel workbook or a zip archive; {_EXPORT}, or unpack it",
    b"\xd0\xcf\x11\xe0": f"an Excel workbook; {_EXPORT}",
    b"PAR1": "a parquet file; its name has to end in .parquet",
    b"BZh": f"packed with bzip2; {_UNPACK}",
    b"\xfd7zXZ\x00": f"packed with xz; {_UNPACK}",
    b"\x28\xb5\x2f\xfd": f"packed with zstd; {_UNPACK}",
    b"%PDF": "a PDF; a table is expected",
    b"\x89PNG": "a picture; a table is expected",
    b"\xff\xd8\xff": "a picture; a table is expected",
    b"SQLite format 3": "an SQLite database; export the table as csv",
}
_SAY = (
    "save it as UTF-8, or name its encoding, such as cp1252: `prepare table --encoding NAME`, "
    "`pretrain --set data.encoding=NAME`"
)


def unreadable(path: Path, reason: str) -> UserError:
    """The error about a file that is not understood."""
    return UserError(f"{path} cannot be read: {reason}")


def check_encoding(name: str) -> None:
    """Refuse what is no encoding of text."""
    try:
        "a".encode(name)  # of nothing, every codec makes something
    except (LookupError, ValueError) as error:
        known = "utf-8, utf-16, cp1252, latin-1, cp1250, gb18030, shift_jis"
        raise UserError(f"encoding {name[:40]!r} is not known; try one of {known}") from error


@contextmanager
def open_text(path: Path, encoding: str = "") -> Iterator[Iterator[str]]:
    """The lines of a file, line ends as they are; gzip is unpacked, a byte order mark removed.

    Args:
        path: the file.
        encoding: by default that of the byte order mark, UTF-16 where every other byte is zero, else UTF-8.

    Raises:
        UserError: missing, no text, packed otherwise, damaged, too large, of another encoding; also while the lines
            are read.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    name = encoding
    try:
        with _open_bytes(path) as content:
            head = content.peek(1)
            _check_kind(path, head)
            name = _encoding(path, head, encoding)
            with io.TextIOWrapper(content, name, newline="") as text:
                yield _lines(path, text)
    except UnicodeError as error:
        raise unreadable(path, _undecodable(path, name)) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise unreadable(
            path, f"it cannot be unpacked ({error}) and is damaged; make or download it again"
        ) from error
    except OSError as error:
        raise UserError(explain(error, path, "read")) from error


def read_lines(path: Path) -> list[str]:
    """All lines without their ends, blank ones among them.

    Raises:
        UserError: as `open_text`.
    """
    with open_text(path) as lines:
        return [line.rstrip("\r\n") for line in lines]


class _Bounded(io.RawIOBase):
    """A stream that is refused as soon as it has given more than the bound."""

    def __init__(self, stream: IO[bytes], bound: int, path: Path) -> None:
        self.stream, self.left, self.bound, self.path = stream, bound, bound, path

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        part = self.stream.read(len(view))
        self.left -= len(part)
        if self.left < 0:
            raise unreadable(
                self.path,
                f"more than {self.bound:,} bytes of text, the bound for a file of its "
                "size; is it damaged? Tables larger than that are read as parquet",
            )
        view[: len(part)] = part
        return len(part)

    def close(self) -> None:
        self.stream.close()
        super().close()


@contextmanager
def _open_bytes(path: Path) -> Iterator[io.BufferedReader[_Bounded]]:
    with path.open("rb") as file:
        packed = file.peek(2).startswith(_GZIP)
        bound = min(MAX_BYTES, max(_UNSUSPECTED, MAX_RATIO * path.stat().st_size)) if packed else MAX_BYTES
        stream = cast(IO[bytes], gzip.GzipFile(fileobj=file)) if packed else file
        with io.BufferedReader(_Bounded(stream, bound, path), _BUFFER) as content:
            yield content


def _check_kind(path: Path, head: bytes) -> None:
    if not head.strip():
        raise unreadable(path, "it is empty")
    kind = next((kind for start, kind in _FOREIGN.items() if head.lstrip().lower().startswith(start.lower())), "")
    if kind := kind or not_the_file(head):
        raise unreadable(path, f"it is {kind}")


def _encoding(path: Path, head: bytes, wanted: str) -> str:
    """The codec: what the file says of itself, else what is wanted, else UTF-16 by its zeros, else UTF-8."""
    marked = next((name for mark, name in _MARKS.items() if head.startswith(mark)), "")
    if wanted:
        name = codecs.lookup(wanted).name
        if marked and not name.startswith(marked.removesuffix("-sig")):
            raise unreadable(path, f"its byte order mark says {marked}, not {wanted}; leave the encoding out")
        return marked or name
    even, odd = head[::2], head[1::2]
    if not marked and len(odd) > 1 and max(even.count(0), odd.count(0)) > 0.4 * len(odd):
        return "utf-16-le" if odd.count(0) > even.count(0) else "utf-16-be"
    return marked or "utf-8"


def _lines(path: Path, text: io.TextIOWrapper) -> Iterator[str]:
    number = 0
    while line := text.readline(MAX_LINE):
        number += 1
        if len(line) == MAX_LINE:
            raise unreadable(path, f"more than {MAX_LINE:,} characters in line {number}")
        yield line.removeprefix("\ufeff") if number == 1 else line


def _undecodable(path: Path, encoding: str) -> str:
    """What is wrong, with the line; the decoder itself reads ahead and does not know it."""
    if encoding.startswith(("utf-16", "utf-32")):
        return f"it is not {encoding} text to its end (cut off or damaged?); {_SAY}"
    with _open_bytes(path) as content:
        number = 0
        while line := content.readline(MAX_LINE):
            number += 1
            try:
                line.decode(encoding)
            except UnicodeDecodeError as error:
                return f"byte 0x{line[error.start]:02x} in line {number} is not {encoding}; {_SAY}"
    return f"it is not {encoding}; {_SAY}"
