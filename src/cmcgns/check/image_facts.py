"""Facts about stored images: measured once per file, kept beside the manifest."""

import hashlib
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cmcgns.check.rule import ImageFacts
from cmcgns.check.text import personal_metadata
from cmcgns.common.errors import UserError
from cmcgns.common.files import WriteRefused, file_stamp, read_arrays, write_arrays
from cmcgns.common.processes import in_threads
from cmcgns.common.remote import is_url
from cmcgns.data.images.files import open_picture
from cmcgns.data.images.near_duplicates import FIELDS, signature
from cmcgns.data.images.place import Gray, Pixels
from cmcgns.data.images.read import gray_of
from cmcgns.data.paths import image_file

TEXT_ROWS = 5  # rows of pixels in a line that cross enough strokes
_LONG_SIDE = 1024  # larger pictures are reduced
_STROKE = 7  # pixels: strokes are thinner; `_slide` is written for 7
_CONTRAST = 80  # of 255, above the surroundings
_BRIGHT = 200  # of 255
_WINDOW = 96  # pixels of a row looked at together
_CROSSINGS = 7  # strokes in them: four letters or more
_BORDER = 0.25  # of the sides; letters are burned into margins, leads and clips lie in the middle


def count_text_rows(grey: NDArray[np.float32]) -> int:
    """How many successive rows of pixels near the border cross many thin bright strokes, as a line of letters does.

    A cheap heuristic, not a reader. A side marker ("L", "R") has too few strokes. Faint, dark or tiny letters and
    single initials are missed; wires, grids and ruler marks may be taken for text. Hence a note, never more.

    Args:
        grey: (height, width), any range.

    Returns:
        The longest run of such rows; :data:`TEXT_ROWS` or more hint at text.
    """
    low, high = float(grey.min()), float(grey.max())
    if high <= low or min(grey.shape) < _STROKE:
        return 0
    image = Image.fromarray(((grey - low) * (255 / (high - low))).astype(np.uint8))
    image.thumbnail((_LONG_SIDE, _LONG_SIDE), reducing_gap=2.0)
    pixels = np.asarray(image)
    surroundings = _slide(_slide(pixels, np.minimum), np.maximum)  # an opening: no thin stroke is left
    strokes = (pixels >= _BRIGHT) & (pixels - surroundings >= _CONTRAST)  # an opening is nowhere brighter
    starts = np.diff(strokes, axis=1, prepend=False) & strokes
    many = np.flatnonzero(starts.sum(axis=1) >= _CROSSINGS)  # few rows, so the rest is done for these alone
    if len(many) < TEXT_ROWS:
        return 0
    hits = np.zeros(starts.shape, dtype=bool)
    hits[many] = _crossings(starts[many]) >= _CROSSINGS
    height, width = pixels.shape
    top, left = round(height * _BORDER), round(width * _BORDER)
    hits[top : height - top, left : max(left, width - left - _WINDOW)] = False
    return _longest_run(hits)


def _slide(pixels: Pixels, extreme: np.ufunc) -> Pixels:
    """(h, w) -> (h, w): smallest or largest value of the square of 7 pixels a side round each, by doubling."""
    for _ in range(2):
        padded = np.pad(pixels, ((_STROKE // 2, _STROKE // 2), (0, 0)), mode="edge")
        two = extreme(padded[1:], padded[:-1])
        four = extreme(two[2:], two[:-2])
        pixels = np.ascontiguousarray(extreme(four[3:], four[:-3]).T)
    return pixels


def _crossings(starts: NDArray[np.bool_]) -> NDArray[np.int32]:
    """(h, w) -> (h, w) number of strokes that begin in the window of a row that starts here."""
    total = np.cumsum(np.pad(starts, ((0, 0), (1, _WINDOW))), axis=1, dtype=np.int32)
    return total[:, _WINDOW:][:, : starts.shape[1]] - total[:, : starts.shape[1]]


def _longest_run(hits: NDArray[np.bool_]) -> int:
    """Longest run of rows that hit in the same strip; strips overlap by half a window."""
    longest = 0
    for left in range(0, hits.shape[1], _WINDOW // 2):
        rows = hits[:, left : left + _WINDOW].any(axis=1)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], rows, [False]])))
        if len(edges):
            longest = max(longest, int((edges[1::2] - edges[::2]).max()))
    return longest


CACHE = "check-cache.npz"
NARROW = 0.1  # `spread` of a picture that shows hardly anything
_VERSION = 2  # to be raised whenever a measurement changes
_FACTS = np.dtype(
    [
        ("width", np.int32),
        ("height", np.int32),
        ("low", np.float32),
        ("high", np.float32),
        ("spread", np.float32),  # share of the gray levels between the 1st and the 99th percentile
        ("text_rows", np.int32),
        ("metadata", "U120"),
        *FIELDS[1:],
    ]
)


def read_grey(file: Path) -> tuple[Gray, set[str]]:
    """Pixels of a stored PNG or JPEG as (height, width) uint8 or uint16, and its kinds of personal metadata.

    Raises:
        UserError: whatever is wrong with the file, in one line without its name.
    """
    try:
        with open_picture(file) as image:
            return gray_of(image, bits=16), personal_metadata(image)
    except UserError as error:
        raise UserError(str(error).removeprefix(f"{file}: ")) from error


def measure(file: Path) -> NDArray[np.void]:
    """Facts of one image as a structured scalar array ()."""
    grey, metadata = read_grey(file)
    facts = np.zeros((), dtype=_FACTS)
    facts["height"], facts["width"] = grey.shape
    facts["low"], facts["high"] = grey.min(), grey.max()
    some = grey[:: len(grey) // 512 + 1]
    facts["spread"] = np.subtract(*np.percentile(some, (99, 1))) / np.iinfo(grey.dtype).max
    facts["text_rows"] = count_text_rows(grey.astype(np.float32))
    facts["metadata"] = ", ".join(sorted(metadata))
    if facts["high"] > facts["low"]:
        facts["hashes"], facts["thumbnails"] = signature(grey)
    return facts


def measure_images(
    folder: Path, image_paths: Sequence[str], progress: Callable[[int], None] | None = None
) -> ImageFacts:
    """Facts of all images of a manifest; unchanged files are found in the cache of an earlier call."""
    files = [image_file(folder, path) for path in image_paths]
    skipped = [row for row, path in enumerate(image_paths) if not path or is_url(path)]
    keys = np.array([_key(file) for file in files], dtype=np.uint64)
    facts = np.zeros(len(files), dtype=_FACTS)
    known = _fill_from_cache(folder / CACHE, keys, facts)
    todo = sorted(set(np.flatnonzero(~known).tolist()) - set(skipped))
    problems: dict[int, str] = {}

    def measure_one(row: int) -> None:
        try:
            facts[row] = measure(Path(files[row]))
        except UserError as error:
            problems[row] = str(error)

    # Pillow decodes outside the interpreter lock; its warnings would name no file.
    with warnings.catch_warnings(action="ignore"):
        in_threads(measure_one, todo, progress)
    result = ImageFacts(facts, dict(sorted(problems.items())), skipped)
    if len(problems) < len(todo):
        with suppress(WriteRefused):  # a folder that may only be read is checked all the same, if slowly again
            write_arrays(folder / CACHE, {"keys": keys[result.read], "facts": facts[result.read]})
    return result


def _key(file: str) -> int:
    """A number that changes when the file does; 0 if there is none."""
    stamp = file_stamp(file)
    if not stamp:
        return 0
    text = f"{_VERSION}\0{file}\0{stamp[0]}\0{stamp[1]}"
    return (
        int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big") or 1
    )


def _fill_from_cache(file: Path, keys: NDArray[np.uint64], facts: NDArray[np.void]) -> NDArray[np.bool_]:
    """Put known facts in place; returns which are known. A cache that cannot be read counts as none."""
    known_keys, known_facts = read_arrays(file, "keys", "facts") or [keys[:0], facts[:0]]
    if known_facts.dtype != _FACTS or len(known_keys) != len(known_facts) or not len(known_keys):
        return np.zeros(len(keys), dtype=bool)
    order = np.argsort(known_keys)
    places = order[np.minimum(np.searchsorted(known_keys[order], keys), len(order) - 1)]
    known: NDArray[np.bool_] = (known_keys[places] == keys) & (keys != 0)
    facts[known] = known_facts[places[known]]
    return known
