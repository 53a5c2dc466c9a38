"""metrics.jsonl: one line a record, cut back to the checkpoint when a run goes on."""

import json
import os
from pathlib import Path
from typing import Any


class MetricsLog:
    """Appends records; holds nothing that depends on the clock, so that equal runs write equal files.

    Args:
        path: metrics.jsonl.
        length: bytes to keep of an existing file.
    """

    def __init__(self, path: Path, length: int = 0) -> None:
        path.touch()
        os.truncate(path, length)
        self._file = path.open("a", encoding="utf-8")

    def write(self, kind: str, **values: Any) -> None:
        """Append one record of a kind (`train`, `validation`, `event`)."""
        self._file.write(json.dumps({"kind": kind} | values) + "\n")
        self._file.flush()

    def sync(self) -> int:
        """Bring everything to the disk; returns the length in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All records of a run."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
