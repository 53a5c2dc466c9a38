"""Finding what two sides share: people, files, pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cmcgns.evaluation.leakage.found import Kind, Overlap
from cmcgns.evaluation.leakage.pictures import same_pictures
from cmcgns.evaluation.leakage.sides import Side

# Datasets of images without patients, whose image ids other datasets take for patients' (COVIDx does so).
_IMAGE_IDS = r"(?:rsna|siim):"
SYNTHETIC = "phantom"
"""Dataset of drawings, which resemble each other more than radiographs do: told apart by ids and files alone."""


def compare(test: Side, other: Side, cache: Path, progress: Callable[[float], None]) -> list[tuple[int, Overlap]]:
    """Everything that two sides share, with the row of the test image.

    Args:
        test: the images that are judged on.
        other: those that were seen.
        cache: folder for comparisons of pictures.
        progress: called with the share that is done.

    Returns:
        Row of the test image and what was found about it: patients first, then files, then pictures.
    """
    people = _join(people_of(test.frame), people_of(other.frame), other.frame)
    files = _join(_keys(test.frame["sha256"]), _keys(other.frame["sha256"]), other.frame)
    pairs, correlations = same_pictures(test, other, cache, progress)
    mine, theirs = (side.frame["sha256"].to_numpy()[pairs[:, end]] for end, side in enumerate((test, other)))
    new = (mine != theirs) | (mine == "")  # the same file has been found already
    drawn = [side.frame["dataset"].to_numpy()[pairs[:, end]] == SYNTHETIC for end, side in enumerate((test, other))]
    new &= ~(drawn[0] & drawn[1])
    found = list(_overlaps("patient", people, test, other)) + list(_overlaps("file", files, test, other))
    return found + list(_overlaps("picture", pairs[new], test, other, correlations[new]))


def people_of(frame: pd.DataFrame) -> pd.DataFrame:
    """`row` and `key` of the people in it; ids carry their dataset's name, empty ones are left out."""
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
