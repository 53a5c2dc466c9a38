"""Files by path or URL alike: s3://, gs://, az://, http(s)://, file:// and memory:// through fsspec.

Credentials and options are fsspec's own (environment variables such as FSSPEC_S3_ANON=true, or its configuration
files). Everything is read whole, within a bound of bytes and of time; nothing is written.
"""

import io
import re
import threading
import time
from pathlib import Path
from typing import Any

from cmcgns.common.errors import UserError, one_line

MAX_IMAGE = 2**26  # bytes of one stored image
PATIENCE = 60.0  # seconds for a whole request, from the first question to the last byte,
SLOWEST = 2**18  # and a second more for so many bytes that have come
ATTEMPTS = 3  # of a remote read: one dropped connection must not end a run of days
# The protocols that are read, and the package that fsspec needs for each.
PACKAGES = {
    "file": "", "memory": "", "http": "aiohttp", "https": "aiohttp", "s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs",
    "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs",
}  # fmt: skip
_FOLDED = re.compile(r"^([a-z][a-z0-9]+):/(?=[^/])")


class NamedBytes(io.BytesIO):
    """A file in memory that messages can name."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.label = name

    def __str__(self) -> str:
        return self.label

    __repr__ = __str__  # other libraries put the object itself into their messages


def is_url(location: Path | str) -> bool:
    """Whether fsspec is to read it."""
    return "://" in str(location)


def location_of(data: Path | str) -> str:
    """A path or URL as text; a URL that went through `Path`, which folds slashes, is mended."""
    text = str(data)
    folded = _FOLDED.match(text)
    if folded is None or Path(text).exists():
        return text
    return f"{folded[1]}://{'/' if folded[1] == 'file' else ''}{text[folded.end() :]}"


def not_here(path: Path | str) -> str:
    """The end of a message about something that is not there: that URLs are not read in this place; else empty."""
    is_remote = is_url(location_of(path))
    return "; a URL is not read here, only folders of shards are: `pretrain --data`" if is_remote else ""


def join(folder: str, name: str) -> str:
    """A file in a folder, both as path or URL."""
    return f"{folder.rstrip('/')}/{name}" if is_url(folder) else str(Path(folder) / name)


def open_url(location: Path | str) -> Any:
    """Open a path or URL for reading.

    Returns:
        An open binary file, to be used with `with`.

    Raises:
        UserError: missing file or bucket, no permission, unknown protocol, or a protocol whose package is missing.
    """
    url = str(location)
    try:
        if not is_url(url):
            return Path(url).open("rb")
        import fsspec

        protocol = _protocol(url)
        # One request for the whole of an http file; by default fsspec asks for ranges, which not every server knows.
        options = {"block_size": 0} if protocol in ("http", "https") else {}
        return fsspec.open(url, "rb", **options).open()
    except ImportError as error:
        package = PACKAGES[_protocol(url)]
        raise UserError(f"{url}: reading {_protocol(url)}:// needs a package: pip install {package}") from error
    except FileNotFoundError as error:
        cause = error.__cause__  # fsspec says of a server that it cannot reach that the file is missing
        if cause is not None and getattr(cause, "status", 0 if isinstance(cause, OSError) else 404) != 404:
            raise cause from None
        raise UserError(f"{url}: no such file") from None


def read_bytes(location: Path | str, bound: int, cut: bool = False) -> bytes:
    """The content of a file; remote ones are tried three times.

    Args:
        location: path or URL.
        bound: bytes; a longer file is refused.
        cut: or cut there.

    Raises:
        UserError: cannot be read, too slow, or longer than the bound.
    """
    attempts = ATTEMPTS if is_url(location) else 1
    for attempt in range(1, attempts + 1):
        try:
            content = _read(location, bound + 1)
            break
        except UserError:
            raise
        except Exception as error:  # each of fsspec's file systems has errors of its own
            if attempt == attempts:
                tried = f" (tried {attempts} times)" if attempts > 1 else ""
                raise UserError(f"{location}: cannot be read{tried}: {one_line(error)}") from error
            time.sleep(2 ** (attempt - 1))
    if cut:
        return content[:bound]
    if len(content) > bound:
        raise UserError(f"{location}: more than the bound of {bound:,} bytes")
    return content


def _read(location: Path | str, most: int) -> bytes:
    request = _Request(location, most)
    if not is_url(location):
        request.run()
    elif not request.answered():
        request.given_up = True
        raise UserError(f"{location}: given up after {PATIENCE:g} seconds ({request.length:,} bytes had come)")
    if request.error is not None:
        raise request.error
    return b"".join(request.parts)


class _Request(threading.Thread):
    """Up to so many bytes of a file, read in a thread that can be left behind.

    No timeout of a library bounds the whole: a server that sends a byte now and then starts each of them anew.
    """

    def __init__(self, location: Path | str, most: int) -> None:
        super().__init__(daemon=True)
        self.location, self.most = location, most
        self.parts: list[bytes] = []
        self.length = 0
        self.error: Exception | None = None
        self.given_up = False

    def run(self) -> None:
        """Read until the end, so many bytes, or nobody waits any more; one `read` of a stream may give few."""
        try:
            with open_url(self.location) as file:
                while self.length < self.most and not self.given_up and (part := file.read(self.most - self.length)):
                    self.parts.append(part)
                    self.length += len(part)
        except Exception as error:
            self.error = error

    def answered(self) -> bool:
        """Start, and wait as long as the request may take; whether it has ended."""
        started = time.monotonic()
        self.start()
        while self.is_alive() and (left := started + PATIENCE + self.length / SLOWEST - time.monotonic()) > 0:
            self.join(left)
        return not self.is_alive()


def _protocol(url: str) -> str:
    protocol = url.split("://", 1)[0]
    if protocol not in PACKAGES or "::" in url:
        known = ", ".join(f"{name}://" for name in PACKAGES)
        raise UserError(f"{url}: not a URL that is read here ({known}; no chained ones)")
    return protocol
