"""Small files of earlier calls, read again: one that is missing or damaged is named, with the way out."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cmcgns.common.errors import UserError, one_line

logger = logging.getLogger(__name__)

_DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError, RecursionError)


@contextmanager
def naming_damage(path: Path, way_out: str, *errors: type[Exception]) -> Iterator[None]:
    """A block that reads a file.

    Args:
        path: the file.
        way_out: what the user can do if it is not as it was written.
        errors: further ones by which its reader tells of damage.

    Raises:
        UserError: it is missing or cannot be read; names it.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {way_out}") from None
    except _DAMAGE + errors as error:
        raise UserError(f"{path} is damaged ({one_line(error)}): {way_out}") from error


def read_json(path: Path, way_out: str) -> dict[str, Any]:
    """The mapping in a JSON file; `way_out` and errors as in `naming_damage`."""
    with naming_damage(path, way_out):
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content, dict):
            raise TypeError("no mapping")
        return content


def read_json_lines(path: Path, way_out: str) -> list[dict[str, Any]]:
    """Records of a log, one a line; `way_out` and errors as in `naming_damage`.

    A last line without an end is left out: its writer was stopped in the middle of it, or is just writing it.
    """
    with naming_damage(path, way_out):
        whole, _, torn = path.read_text("utf-8", errors="replace").rpartition("\n")
        if torn:
            logger.warning("%s: the last line is torn and left out", path)
        lines = whole.split("\n") if whole else []
        for number, line in enumerate(lines, 1):
            if "\ufffd" in line or "\0" in line:
                raise ValueError(f"line {number} is no text")
        records = [json.loads(line) for line in lines]
        if not all(isinstance(record, dict) for record in records):
            raise TypeError("a line is no mapping")
        return records
