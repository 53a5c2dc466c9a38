"""Lookup tables of DICOM files (PS3.3 C.11.1.1 and C.11.2.1.1), their descriptors checked against their data.

Three numbers describe a table, and writers get each of them wrong:

- how many entries: 0 is 65,536, and where the file's value representation is signed, large numbers are negative;
- the value that the first entry belongs to: its sign is lost where the representation says unsigned, or is not
  written (Implicit VR). Of the two readings the one that meets more of the values that a pixel may have is taken;
- bits of an entry: white is the largest number of the bits that the entries really need, whatever is declared.

Entries of 8 bits may stand two in a 16-bit word.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmcgns.common.errors import UserError
from cmcgns.data.images.brightness import Values

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


class LookupTable(NamedTuple):
    """A table as its data are.

    Attributes:
        entries: (n,) whole numbers.
        first: the value that the first entry belongs to.
        declared: bits of an entry by the descriptor.
    """

    entries: NDArray[np.int64]
    first: int
    declared: int

    @property
    def needed(self) -> int:
        """Bits that the greatest entry needs."""
        return max(1, int(self.entries.max()).bit_length())

    def look_up(self, values: Values) -> Values:
        """Entries of values; those before the first and after the last have the entries there."""
        places = np.clip(np.rint(values - self.first), 0, len(self.entries) - 1).astype(np.int64)
        return self.entries[places].astype(np.float64)


def lookup_table(item: "Dataset", values: Values, path: Path) -> LookupTable:
    """The table in an item of a modality or VOI LUT sequence."""
    count, first, declared = _descriptor(item, path)
    words = _words(item, path)
    if len(words) < count <= 2 * len(words):
        words = words.astype("<u2").view(np.uint8)
    if len(words) < count:
        raise UserError(f"{path}: lookup table of {len(words)} values, its LUTDescriptor says {count}")
    low, high = float(values.min()), float(values.max())

    def met(start: int) -> float:
        return min(high, start + count - 1) - max(low, start)

    other = first - 65536 if first >= 32768 else first + 65536 if first < 0 else first
    first = other if met(other) > max(met(first), -1) else first
    return LookupTable(words[:count].astype(np.int64), first, declared)


def _descriptor(item: "Dataset", path: Path) -> tuple[int, int, int]:
    stated: Any = item.get("LUTDescriptor")
    if isinstance(stated, bytes):  # of unknown representation
        stated = np.frombuffer(stated[: len(stated) // 2 * 2], _word(item))
    try:
        count, first, bits = (int(number) for number in stated)
    except (TypeError, ValueError):
        raise UserError(f"{path}: lookup table whose LUTDescriptor is not three whole numbers") from None
    return count & 0xFFFF or 65536, first, bits


def _words(item: "Dataset", path: Path) -> NDArray[np.uint16]:
    data: Any = item.get("LUTData")
    if data is None or (isinstance(data, bytes) and not data):
        raise UserError(f"{path}: lookup table without LUTData")
    if isinstance(data, bytes):
        return np.frombuffer(data + b"\0" * (len(data) % 2), _word(item)).astype(np.uint16)
    return (np.atleast_1d(np.asarray(data, dtype=np.int64)) & 0xFFFF).astype(np.uint16)


def _word(item: "Dataset") -> str:
    return ">u2" if item.original_encoding[1] is False else "<u2"
