"""Brightness of pictures that do not say what is black and what is white: one rule for every format.

A picture of more than 8 bits without a window or lookup table is stretched from its least to its greatest value,
pixel padding left aside: DICOM, a 16-bit PNG and an array of the same values give the same picture. One of 8 bits
stays as it is. Files by :func:`cmcgns.data.images.read.encode_image` carry a mark, and are not stretched twice.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cmcgns.data.images.place import Gray

Values: TypeAlias = NDArray[np.float64]

MARK = ("Brightness", "black 0, white 65535")
"""Keyword and text in a 16-bit PNG whose brightness is final."""


def stretch(values: NDArray[Any], least: float, greatest: float) -> Values:
    """Brightness from 0 at the least value to 1 at the greatest; beyond them, and without any contrast, black."""
    return np.clip((values - least) / max(greatest - least, 1e-9), 0, 1)


def quantise(brightness: Values, bits: int) -> Gray:
    """Brightness from 0 to 1 as whole numbers of 8 or 16 bits, rounded to the nearest."""
    levels = brightness * ((1 << bits) - 1) + 0.5
    return levels.astype(np.uint8) if bits == 8 else levels.astype(np.uint16)


def gray_of_values(values: NDArray[np.uint16], bits: int, texts: Mapping[Any, Any]) -> Gray:
    """A picture of more than 8 bits that is no DICOM file.

    Args:
        values: (H,W).
        bits: 8 or 16, of the result.
        texts: the file's, by keyword; they may hold the mark.
    """
    final = texts.get(MARK[0]) == MARK[1]
    if final and bits == 16:
        return values
    least, greatest = (0, 65535) if final or values.size == 0 else (int(values.min()), int(values.max()))
    return quantise(stretch(np.arange(greatest + 1), least, greatest), bits)[values]
