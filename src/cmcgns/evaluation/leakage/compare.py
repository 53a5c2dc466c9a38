"""Finding what two sides share: people, files, pictures."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cmcgns.check.duplicates import near_duplicates
from cmcgns.check.squares import Signatures
from cmcgns.evaluation.leakage.found import Kind, Overlap
from cmcgns.evaluation.leakage.sides import Side
from cmcgns.files import write_atomically

_VERSION = 1  # to be raised whenever near duplicates are found in another way
# Datasets of images without patients, whose image ids other datasets take for patients' (COVIDx does so).
_IMAGE_IDS = r"(?:rsna|siim):"
SYNTHETIC = "phantom"
"""Dataset of drawings, which resemble each other more than radiographs do: told apart by ids and files alone."""
_Pairs = tuple[NDArray[np.int64], NDArray[np.float32]]


def compare(test: Side, other: Side, cache: Path, progress: Callable[[float], None]) -> list[tuple[int, Overlap]]:
    """Everything that two sides share, with the row of the test image.

    Args:
        test: the images that are judged on.
        other: those that were seen.
        cache: folder for comparisons of pictures.
        progress: called with the share that is done.
    """
    people = _join(people_of(test.frame), people_of(other.frame), other.frame)
    files = _join(_keys(test.frame["sha256"]), _keys(other.frame["sha256"]), other.frame)
    pairs, correlations = _similar(test, other, cache, progress)
    mine, theirs = (side.frame["sha256"].to_numpy()[pairs[:, end]] for end, side in enumerate((test, other)))
    new = (mine != theirs) | (mine == "")  # the same file has been found already
    drawn = [side.frame["dataset"].to_numpy()[pairs[:, end]] == SYNTHETIC for end, side in enumerate((test, other))]
    new &= ~(drawn[0] & drawn[1])
    found = list(_overlaps("patient", people, test, other)) + list(_overlaps("file", files, test, other))
    return found + list(_overlaps("picture", pairs[new], test, other, correlations[new]))


def people_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows and the ids of the people in them; ids carry their dataset's name, empty ones are left out."""
    patients = _keys(with_dataset(frame["patient_id"], frame["dataset"]))
    studies = with_dataset(frame["study_id"], frame["dataset"])
    return pd.concat([patients, _keys(studies.where(studies.str.match(_IMAGE_IDS), ""))]).drop_duplicates()


def with_dataset(ids: pd.Series, datasets: pd.Series) -> pd.Series:
    """Ids with the name of their dataset before a colon, if they have none and it is known."""
    bare = (ids != "") & ~ids.str.contains(":", regex=False) & (datasets != "")
    return ids.mask(bare, datasets + ":" + ids)


def _keys(values: pd.Series) -> pd.DataFrame:
    table = pd.DataFrame({"row": np.arange(len(values)), "key": values.to_numpy()})
    return table[table["key"] != ""]


def _join(test: pd.DataFrame, other: pd.DataFrame, frame: pd.DataFrame) -> NDArray[np.int64]:
    """(p, 2) rows with equal keys: for every test row the first one of each place."""
    other = other.assign(where=frame["where"].to_numpy()[other["row"]]).drop_duplicates(["key", "where"])
    both = test.merge(other, on="key", suffixes=("", "_other")).drop_duplicates(["row", "where"])
    pairs: NDArray[np.int64] = both[["row", "row_other"]].to_numpy(dtype=np.int64)
    return pairs


def _overlaps(
    kind: Kind, pairs: NDArray[np.int64], test: Side, other: Side, correlations: NDArray[np.float32] | None = None
) -> Iterator[tuple[int, Overlap]]:
    mine = test.frame.iloc[pairs[:, 0]]
    theirs = other.frame.iloc[pairs[:, 1]]
    values = [None] * len(pairs) if correlations is None else [round(float(value), 4) for value in correlations]
    columns = [mine[name] for name in ("image_path", "study_id", "patient_id")]
    columns += [theirs[name] for name in ("where", "study_id", "patient_id")]
    for row, value, *cells in zip(pairs[:, 0].tolist(), values, *columns, strict=True):
        image, study, patient, where, other_study, other_patient = map(str, cells)
        yield row, Overlap(kind, image, study, patient, where, other_study, other_patient, value)


def _similar(test: Side, other: Side, cache: Path, progress: Callable[[float], None]) -> _Pairs:
    """(p, 2) rows of the same pictures and (p,) correlations; a comparison that was made once is found again."""
    digest = hashlib.blake2b(f"{_VERSION} {test.key} {other.key}".encode(), digest_size=12).hexdigest()
    file = cache / "same-pictures" / f"{digest}.npz"
    try:
        with np.load(file, allow_pickle=False) as stored:
            return stored["pairs"], stored["correlations"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # none, or torn: compared again
        pass
    pairs, correlations = _search(test, other, progress)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            np.savez(stream, pairs=pairs, correlations=correlations)

    write_atomically(file, write, durable=False)
    return pairs, correlations


def _search(test: Side, other: Side, progress: Callable[[float], None]) -> _Pairs:
    mine = np.concatenate([block for _, block in test.blocks()])
    rows = np.flatnonzero(mine["comparable"])
    workers = os.cpu_count() or 1
    parts = [part for part in np.array_split(rows, workers) if len(part)]
    # One of several copies of a file stands for all of them.
    hashes = other.frame[["sha256", "where"]]
    repeated = hashes.duplicated().to_numpy() & (hashes["sha256"] != "").to_numpy()
    found: list[_Pairs] = []
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


def _near(mine: Signatures, rows: NDArray[np.int64], seen: tuple[NDArray[np.uint64], NDArray[np.uint8]]) -> _Pairs:
    pairs, correlations = near_duplicates(mine["hashes"][rows], mine["thumbnails"][rows], seen)
    return np.stack([rows[pairs[:, 0]], pairs[:, 1]], axis=1), correlations
