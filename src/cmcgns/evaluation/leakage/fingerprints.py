"""Fingerprints of two sets of images, and the pictures that both hold: 256-bit hashes propose, thumbnails decide."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cmcgns.common.array_cache import MappedArray, cached_array
from cmcgns.common.files import read_arrays, sha256, sha256_of_files, write_arrays
from cmcgns.data.images.files import picture_sizes
from cmcgns.data.images.near_duplicates import FIELDS, Signatures, near_duplicates, square_signatures
from cmcgns.data.paths import image_file
from cmcgns.evaluation.image_set import ImageSet
from cmcgns.evaluation.leakage.overlap import PRETRAINING
from cmcgns.training.seen import ROWS, SeenFile

_VERSION = 1  # to be raised whenever signatures change, or near duplicates are found in another way
_CACHED = np.dtype([*FIELDS, ("sha256", "S64")])  # the hash only where the manifest has none
_PARTS = {"train": PRETRAINING, "val": f"{PRETRAINING} validation"}
COLUMNS = ["image_path", "patient_id", "study_id", "dataset", "sha256", "where"]


@dataclass(frozen=True)
class Fingerprints:
    """Images with ids, file hashes and signatures.

    Attributes:
        frame: `COLUMNS`, one row an image; numbered from 0.
        blocks: gives first row and signatures of one block after the other.
        key: changes with the images; names cached comparisons.
        without_picture: how many have no signature: streamed from shards, or blank.
    """

    frame: pd.DataFrame
    blocks: Callable[[], Iterator[tuple[int, Signatures]]]
    key: str
    without_picture: int


def seen_fingerprints(seen: SeenFile) -> Fingerprints:
    """What a run and those before it saw."""
    frame = seen.frame
    where = frame["part"].map(_PARTS).fillna(PRETRAINING).astype("str")
    where = where.mask(frame["run"] != "", where + " of " + frame["run"])
    return Fingerprints(
        frame.assign(where=where, image_path="")[COLUMNS], seen.signatures, sha256(seen.path), seen.without_picture
    )


def fingerprints_of(sets: Mapping[str, ImageSet], cache: Path, progress: Callable[[int], None]) -> Fingerprints:
    """Evaluation images; their signatures are kept in `cache`."""
    keys, arrays = zip(*(_facts(images, cache, progress) for images in sets.values()), strict=True)
    frames = []
    for (where, images), facts in zip(sets.items(), arrays, strict=True):
        stated = images.frame["sha256"]
        hashes = stated.where(stated != "", facts["sha256"].astype("U64"))
        frames.append(images.frame.assign(sha256=hashes, where=where)[COLUMNS])

    def blocks() -> Iterator[tuple[int, Signatures]]:
        first = 0
        for facts in arrays:
            for start in range(0, len(facts), ROWS):
                yield first + start, facts[start : start + ROWS]
            first += len(facts)

    blank = sum(int(np.count_nonzero(~facts["comparable"])) for facts in arrays)
    return Fingerprints(pd.concat(frames, ignore_index=True), blocks, "-".join(keys), blank)


def _facts(images: ImageSet, cache: Path, progress: Callable[[int], None]) -> tuple[str, NDArray[Any]]:
    """Key and (n,) `_CACHED`, memory-mapped."""
    frame = images.frame
    key = _key(images)

    def fill(facts: MappedArray, _: Sequence[int]) -> None:
        paths = [image_file(images.folder, path) for path in frame["image_path"]]
        square_signatures(images.pixels, np.arange(len(images)), picture_sizes(frame, paths), facts, progress)
        unhashed = np.flatnonzero(frame["sha256"] == "")
        facts["sha256"][unhashed] = sha256_of_files([paths[row] for row in unhashed])

    return key, cached_array(cache / "signatures" / f"{key}.npy", (len(images),), _CACHED, fill)


def _key(images: ImageSet) -> str:
    """The name of an array in the image cache stands for paths, sizes and times of its files."""
    digest = hashlib.blake2b(f"{_VERSION} {images.pixels.shape}\n".encode(), digest_size=12)
    array = getattr(images.pixels, "filename", None)
    digest.update(str(array).encode() if array else np.ascontiguousarray(images.pixels).tobytes())
    stated = images.frame[["image_path", "sha256", "width", "height"]].astype("str")
    digest.update(pd.util.hash_pandas_object(stated, index=False).to_numpy().tobytes())
    return digest.hexdigest()


SamePictures = tuple[NDArray[np.int64], NDArray[np.float32]]


def same_pictures(
    test: Fingerprints, other: Fingerprints, cache: Path, progress: Callable[[float], None]
) -> SamePictures:
    """Pictures of one set that the other has too; a comparison that was made once is found again.

    Returns:
        (p, 2) rows of the two sets, and (p,) correlations of their thumbnails.
    """
    digest = hashlib.blake2b(f"{_VERSION} {test.key} {other.key}".encode(), digest_size=12).hexdigest()
    file = cache / "same-pictures" / f"{digest}.npz"
    if stored := read_arrays(file, "pairs", "correlations"):
        return stored[0], stored[1]
    pairs, correlations = _search(test, other, progress)
    write_arrays(file, {"pairs": pairs, "correlations": correlations}, durable=False)
    return pairs, correlations


def _search(test: Fingerprints, other: Fingerprints, progress: Callable[[float], None]) -> SamePictures:
    mine = np.concatenate([block for _, block in test.blocks()])
    rows = np.flatnonzero(mine["comparable"])
    workers = os.cpu_count() or 1
    parts = [(part, mine["hashes"][part], mine["thumbnails"][part]) for part in np.array_split(rows, workers)]
    # One of several copies of a file stands for all of them.
    files = other.frame[["sha256", "where"]]
    repeated = files.duplicated().to_numpy() & (files["sha256"] != "").to_numpy()
    found: list[SamePictures] = [(np.empty((0, 2), np.int64), np.empty(0, np.float32))]
    with ThreadPoolExecutor(workers) as pool:  # comparing releases the interpreter lock
        for start, block in other.blocks():
            theirs = np.flatnonzero(block["comparable"] & ~repeated[start : start + len(block)])
            seen = block["hashes"][theirs], block["thumbnails"][theirs]
            tasks = [pool.submit(near_duplicates, hashes, small, seen) for _, hashes, small in parts]
            for (part, _, _), task in zip(parts, tasks, strict=True):
                pairs, correlations = task.result()
                found.append((np.stack([part[pairs[:, 0]], theirs[pairs[:, 1]] + start], axis=1), correlations))
            progress((start + len(block)) / max(1, len(other.frame)))
    return np.concatenate([pairs for pairs, _ in found]), np.concatenate([values for _, values in found])
