"""Finding the same pictures on two sides: 256-bit hashes propose, thumbnails decide."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmcgns.check.duplicates import near_duplicates
from cmcgns.check.squares import Signatures
from cmcgns.evaluation.leakage.sides import Side
from cmcgns.files import write_arrays

_VERSION = 1  # to be raised whenever near duplicates are found in another way
SamePictures = tuple[NDArray[np.int64], NDArray[np.float32]]


def same_pictures(test: Side, other: Side, cache: Path, progress: Callable[[float], None]) -> SamePictures:
    """Pictures of one side that the other has too; a comparison that was made once is found again.

    Args:
        test: the images that are judged on.
        other: those that were seen.
        cache: folder for comparisons.
        progress: called with the share that is done.

    Returns:
        (p, 2) rows of the two sides, and (p,) correlations of their thumbnails.
    """
    digest = hashlib.blake2b(f"{_VERSION} {test.key} {other.key}".encode(), digest_size=12).hexdigest()
    file = cache / "same-pictures" / f"{digest}.npz"
    try:
        with np.load(file, allow_pickle=False) as stored:
            return stored["pairs"], stored["correlations"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # none, or torn: compared again
        pass
    pairs, correlations = _search(test, other, progress)
    write_arrays(file, {"pairs": pairs, "correlations": correlations}, durable=False)
    return pairs, correlations


def _search(test: Side, other: Side, progress: Callable[[float], None]) -> SamePictures:
    mine = np.concatenate([block for _, block in test.blocks()])
    rows = np.flatnonzero(mine["comparable"])
    workers = os.cpu_count() or 1
    parts = [part for part in np.array_split(rows, workers) if len(part)]
    # One of several copies of a file stands for all of them.
    hashes = other.frame[["sha256", "where"]]
    repeated = hashes.duplicated().to_numpy() & (hashes["sha256"] != "").to_numpy()
    found: list[SamePictures] = []
    with ThreadPoolExecutor(workers) as pool:  # comparing releases the interpreter lock
        for start, block in other.blocks():
            theirs = np.flatnonzero(block["comparable"] & ~repeated[start : start + len(block)])
            seen = block["hashes"][theirs], block["thumbnails"][theirs]
            tasks = [pool.submit(_near, mine, part, seen) for part in parts]
            for task in tasks:
                pairs, correlations = task.result()
                found.append((np.stack([pairs[:, 0], theirs[pairs[:, 1]] + start], axis=1), correlations))
            progress((start + len(block)) / max(1, len(other.frame)))
    if not found:
        return np.empty((0, 2), np.int64), np.empty(0, np.float32)
    return np.concatenate([pairs for pairs, _ in found]), np.concatenate([values for _, values in found])


def _near(
    mine: Signatures, rows: NDArray[np.int64], seen: tuple[NDArray[np.uint64], NDArray[np.uint8]]
) -> SamePictures:
    pairs, correlations = near_duplicates(mine["hashes"][rows], mine["thumbnails"][rows], seen)
    return np.stack([rows[pairs[:, 0]], pairs[:, 1]], axis=1), correlations
