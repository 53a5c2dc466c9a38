"""What a malformed call is: words, the files it meets, and what the answer must say."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Content = str | bytes | None | Callable[[Path], Any]
"""Of a file: text, bytes, None for "not there", or what is done at its place."""


@dataclass(frozen=True)
class Call:
    """One call.

    Attributes:
        words: as typed after `cmcgns`, in a folder where the parts of `world.py` lie beside each other; for Python
            calls an expression.
        must: what the message must contain, in any case: the file, row, key or option, and a way out. Bars between
            blanks stand between alternatives.
        files: what is put there or damaged before; a part that is damaged is a copy.
        status: 2, or 1 where what failed is one of several things to do, or a finding.
        known: why the answer is not what it should be, for the time being.
    """

    words: str
    must: Sequence[str]
    files: Mapping[str, Content] = field(default_factory=dict)
    status: int = 2
    known: str = ""
