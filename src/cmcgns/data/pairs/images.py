"""Images of the rows of a table: read once, indexed by row, and how large the files' own pictures are."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cmcgns.common.errors import UserError
from cmcgns.data.images.files import image_size
from cmcgns.data.images.place import Pixels
from cmcgns.data.images.read import load_images
from cmcgns.data.pairs.rows import PairTable
from cmcgns.settings.config import DataSettings

_LOOKED_AT = 200  # files, for the size of the pictures


class StoredImages(Protocol):
    """An array of all images, or what reads them when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, S, S)."""

    def __getitem__(self, rows: Any, /) -> Any:
        """(b,) rows -> (b, S, S) uint8."""


class SomeImages:
    """Images of rows in an array that holds other rows, or fewer, and stays where it is.

    Indexed by all rows at once, a memory map would come into memory.

    Args:
        pixels: (k, S, S).
        places: (n,) where each row's image is in the array; -1: it is not held.
    """

    def __init__(self, pixels: Pixels, places: NDArray[np.int64]) -> None:
        self.pixels, self.places = pixels, places
        self.shape = (len(places), *pixels.shape[1:])

    def __getitem__(self, rows: NDArray[np.int64]) -> Pixels:
        places = self.places[rows]
        if (places < 0).any():
            raise IndexError("a row that is not held")
        return np.asarray(self.pixels[places])


def read_images(
    pairs: PairTable, settings: DataSettings, progress: Callable[[int], None] | None = None
) -> Pixels | SomeImages:
    """Resized images of the rows, from the cache or the files.

    Args:
        pairs: rows whose images cannot be read are left out, if the settings say so.
        settings: size, and what is done about unreadable images.
        progress: called with the number of images done since the last call.

    Returns:
        (n, S, S) uint8, one of each row that is left.

    Raises:
        UserError: unreadable images, unless they are to be left out; names rows and files.
    """
    paths = pairs.frame["image_path"].tolist()
    images, errors = load_images(paths, settings.resize, progress)
    if not errors:
        return images
    if settings.bad_images == "stop":
        rows = pairs.frame["row"]
        shown = "\n  ".join(f"row {rows[i]}: {text}" for i, text in list(errors.items())[:10])
        raise UserError(
            f"{pairs.source}: {len(errors)} images cannot be read:\n  {shown}\n"
            "Replace them, or leave these rows out with --set data.bad_images=leave_out"
        )
    bad = np.zeros(len(paths), dtype=bool)
    bad[list(errors)] = True
    pairs.leave_out(pd.Series(bad), "unreadable image")
    return SomeImages(images, np.flatnonzero(~bad))


def twice_the_side(settings: DataSettings) -> DataSettings:
    """The settings for pictures of twice the side."""
    return settings.model_copy(update={"resize": 2 * settings.resize})


def count_small(paths: Sequence[str], side: int) -> tuple[int, int]:
    """How many pictures have a long side of fewer pixels, by the heads of some of the files.

    Args:
        paths: files, of which a few are looked at, evenly spread, and no URLs.
        side: pixels.

    Returns:
        Small ones, and those whose size is known.
    """
    longest: list[int] = []
    for place in np.linspace(0, len(paths) - 1, min(_LOOKED_AT, len(paths))).astype(int):
        with suppress(UserError):  # of a URL; else reading it will say what is wrong
            longest.append(max(image_size(paths[place])))
    return sum(each < side for each in longest), len(longest)
