"""From stored DICOM values to brightness: modality LUT, VOI LUT or window, MONOCHROME1.

All steps act on a table of every value that a pixel can hold: at most 65,536 numbers in full precision, instead of
millions of pixels. What is done in which order is told in `cmcgns.data.images.dicom`.

Three numbers describe a lookup table (PS3.3 C.11.1.1 and C.11.2.1.1), and writers get each of them wrong:

- how many entries: 0 is 65,536, and where the file's value representation is signed, large numbers are negative;
- the value that the first entry belongs to: its sign is lost where the representation says unsigned, or is not
  written (Implicit VR). Of the two readings the one that meets more of the values that a pixel may have is taken;
- bits of an entry: white is the largest number of the bits that the entries really need, whatever is declared.

Entries of 8 bits may stand two in a 16-bit word.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cmcgns.common.errors import UserError
from cmcgns.data.images.brightness import Values, stretch

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Stored: TypeAlias = NDArray[np.int64]


def gray_table(dataset: "Dataset", pixels: NDArray[Any], path: Path) -> tuple[Values, str]:
    """Brightness of every value that a pixel can hold.

    Args:
        dataset: header of the file.
        pixels: (H,W) uint8 or uint16, the bits as they are stored.
        path: named in messages.

    Returns:
        (256,) or (65536,) brightness from 0 (black) to 1 (white) by the pixel's bits, and which VOI that is, e.g.
        `window 2048/4096`.
    """
    inverted = str(dataset.PhotometricInterpretation).strip() == "MONOCHROME1"
    stored = _stored_values(dataset, pixels.dtype.itemsize * 8)
    modality, changed = _modality_values(dataset, stored, path)
    if dataset.get("VOILUTSequence"):
        lut = _lookup_table(dataset.VOILUTSequence[0], modality, path)
        table = stretch(lut.look_up(modality), 0, 2**lut.needed - 1)
        voi = "lut" if lut.needed == lut.declared else f"lut of {lut.needed} bits, declared {lut.declared}"
    elif (window := _window(dataset, modality)) is not None:
        table, voi = window, f"window {_first(dataset.get('WindowCenter'))}/{_first(dataset.get('WindowWidth'))}"
    else:
        used = int(dataset.BitsStored)
        plain = not changed and used <= 8 and not dataset.get("PixelRepresentation")
        low, high = (0.0, float(2**used - 1)) if plain else _content_range(dataset, pixels, stored, modality)
        voi = f"range {low:g}..{high:g}" + (", window unusable" if dataset.get("WindowWidth") is not None else "")
        # Inverted before the stretch: halves are then rounded as in a file of the inverted values.
        return stretch(-modality, -high, -low) if inverted else stretch(modality, low, high), voi
    return (1 - table if inverted else table), voi


def _stored_values(dataset: "Dataset", bits: int) -> Stored:
    """What each of the 2^bits patterns of a pixel's bits stands for."""
    used = int(dataset.BitsStored)
    patterns: Stored = np.arange(2**bits, dtype=np.int64)
    highest = dataset.get("HighBit")
    if highest is not None and not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        patterns >>= max(0, int(highest) + 1 - used)
    values: Stored = patterns & (2**used - 1)
    if dataset.get("PixelRepresentation"):
        values[values >= 2 ** (used - 1)] -= 2**used
    return values


def _modality_values(dataset: "Dataset", stored: Stored, path: Path) -> tuple[Values, bool]:
    """Values after the modality LUT, and whether it changed any."""
    if dataset.get("ModalityLUTSequence"):
        values = stored.astype(np.float64)
        return _lookup_table(dataset.ModalityLUTSequence[0], values, path).look_up(values), True
    slope, intercept = _number(dataset, "RescaleSlope"), _number(dataset, "RescaleIntercept")
    slope, intercept = 1.0 if slope is None else slope, 0.0 if intercept is None else intercept
    if not (np.isfinite(slope) and np.isfinite(intercept) and slope != 0):
        raise UserError(f"{path}: RescaleSlope {slope:g} with RescaleIntercept {intercept:g} is unusable")
    return stored.astype(np.float64) * slope + intercept, (slope, intercept) != (1, 0)


def _window(dataset: "Dataset", values: Values) -> Values | None:
    """Brightness by the first window (PS3.3 C.11.2.1.2 and C.11.2.1.3); None: there is none, or it is unusable."""
    centre, width = _number(dataset, "WindowCenter"), _number(dataset, "WindowWidth")
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    if centre is None or width is None or not (np.isfinite(centre) and np.isfinite(width) and width > 0):
        return None
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -500, 500)))
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0, 1)
    if function != "LINEAR" or width < 1:
        return None
    if width == 1:
        return (values > centre - 0.5).astype(np.float64)
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)


def _content_range(dataset: "Dataset", pixels: NDArray[Any], stored: Stored, modality: Values) -> tuple[float, float]:
    """Smallest and largest modality value in a picture, padding left aside unless there is nothing else."""
    padding, limit = _number(dataset, "PixelPaddingValue"), _number(dataset, "PixelPaddingRangeLimit")
    between = modality[pixels.min() : int(pixels.max()) + 1]
    if padding is None and len({*np.sign(np.diff(between))}) <= 1:  # the common case, and ten times faster
        return float(between.min()), float(between.max())
    present = np.zeros(len(stored), dtype=bool)
    present[pixels] = True
    if padding is not None:
        ends = sorted((padding, padding if limit is None else limit))
        counted = present & ~((stored >= ends[0]) & (stored <= ends[1]))
        present = counted if counted.any() else present
    return float(modality[present].min()), float(modality[present].max())


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue" else value


def _number(dataset: "Dataset", keyword: str) -> float | None:
    """The first number in an element; None: absent or empty; NaN: not a number."""
    try:
        value = _first(dataset.get(keyword))
        return None if value in (None, "") else float(value)
    except (TypeError, ValueError, IndexError, OverflowError):
        return float("nan")


class _LookupTable(NamedTuple):
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


def _lookup_table(item: "Dataset", values: Values, path: Path) -> _LookupTable:
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
    return _LookupTable(words[:count].astype(np.int64), first, declared)


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
