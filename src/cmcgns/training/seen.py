"""Noting who a run trains and validates on, and who the run saw that it starts from."""

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet
from numpy.typing import NDArray
from rich.progress import Progress

from cmcgns.common.errors import UserError
from cmcgns.common.files import sha256
from cmcgns.common.remote import is_url
from cmcgns.data.images.files import image_size
from cmcgns.data.images.near_duplicates import SIGNATURE, Signatures, square_signatures
from cmcgns.data.shards.stream import ShardImages
from cmcgns.settings.config import Recipe
from cmcgns.training.data import PreparedData
from cmcgns.training.run_folder import RunFolder
from cmcgns.training.seen_file import ROWS, SeenFile, open_seen, write_seen_file

logger = logging.getLogger(__name__)

_HASH = re.compile(r"[0-9a-f]{64}")
_Block = tuple[pd.DataFrame, Signatures]
_KEY = ["patient_id", "study_id", "sha256", "part"]


@dataclass(frozen=True)
class _Part:
    """Rows of one split: columns of `seen.parquet`, image_path, width, height; and where their pixels are."""

    frame: pd.DataFrame
    images: Any
    rows: NDArray[np.int64]

    @property
    def streamed(self) -> bool:
        return isinstance(self.images, ShardImages)


def write_seen(folder: RunFolder, prepared: PreparedData, recipe: Recipe, init: Path | None) -> dict[str, Any]:
    """Write `seen.parquet`: every training and validation image, and those of the run whose weights it starts from.

    Pixels that are streamed from shards are not compared, because reading them takes as long as an epoch.

    Args:
        folder: the run.
        prepared: its data.
        recipe: its settings.
        init: the run that it starts from.

    Returns:
        Counts for provenance.json.
    """
    before = open_seen(RunFolder(init).seen) if init else None
    unknown = _not_listed(folder, recipe, init, before)
    pictures = 0

    def counted(blocks: Iterator[_Block]) -> Iterator[_Block]:
        nonlocal pictures
        for frame, signatures in blocks:
            pictures += int(signatures["comparable"].sum())
            yield frame, signatures
            progress.advance(bar, len(frame))

    with Progress(transient=True) as progress:
        parts = _parts(prepared, progress)
        kept = _not_in(before, parts, init.name) if before and init else pd.DataFrame()
        own = sum(len(part.frame) for part in parts)
        bar = progress.add_task("noting which images are seen", total=own + len(kept))
        write_seen_file(folder.seen, counted(chain(_own_blocks(parts), _earlier_blocks(before, kept))), unknown)
    streamed = sum(len(part.frame) for part in parts if part.streamed)
    if streamed:
        logger.info(
            "%s: pictures of %d streamed images are not noted; leakage is judged by their ids and file hashes",
            folder.seen.name, streamed,
        )  # fmt: skip
    return {"images": own, "of_init": len(kept), "pictures": pictures, "unknown": unknown}


def _not_listed(folder: RunFolder, recipe: Recipe, init: Path | None, before: SeenFile | None) -> list[str]:
    unknown = list(before.unknown) if before else []
    if init and before is None:
        unknown.append(f"what {init.name} saw, which the run starts from (it has no {folder.seen.name})")
    if recipe.image_encoder.weights is not None:
        unknown.append(f"what {Path(recipe.image_encoder.weights).name} saw, the weights that the run starts from")
    return unknown


def _own_blocks(parts: list[_Part]) -> Iterator[_Block]:
    for part in parts:
        for start in range(0, len(part.frame), ROWS):
            frame, rows = part.frame[start : start + ROWS], part.rows[start : start + ROWS]
            if part.streamed:
                yield frame, np.zeros(len(frame), dtype=SIGNATURE)
            else:
                sizes = picture_sizes(frame, frame["image_path"].tolist())
                yield frame, square_signatures(part.images, rows, sizes)


def _earlier_blocks(before: SeenFile | None, kept: pd.DataFrame) -> Iterator[_Block]:
    if before is None or len(kept) == 0:
        return
    for start, signatures in before.signatures():
        frame = kept[(kept.index >= start) & (kept.index < start + len(signatures))]
        if len(frame):
            yield frame, signatures[frame.index.to_numpy() - start]


def _parts(prepared: PreparedData, progress: Progress) -> list[_Part]:
    table = _table(prepared, progress)
    sets = {"train": prepared.train, "val": prepared.validation}
    return [_Part(table[table["part"] == name], each.images, each.rows) for name, each in sets.items()]


def _table(prepared: PreparedData, progress: Progress) -> pd.DataFrame:
    """The rows of both splits, in their order."""
    frame, source = prepared.pairs.frame, prepared.pairs.source
    for name in ("sha256", "width", "height"):
        if name not in frame:
            frame = frame.assign(**{name: _column(source, name, frame["row"])})
    rows = {"train": prepared.train.rows, "val": prepared.validation.rows}
    table = pd.concat([frame.iloc[numbers].assign(part=name) for name, numbers in rows.items()], ignore_index=True)
    # Ids that stand for missing ones are paths of this machine: no patient, and a study only below its table.
    table["patient_id"] = table["patient_id"].mask(table["patient_id"] == table["image_path"], "")
    pathless = table["image_path"].str.removeprefix(f"{source.parent.resolve()}/")
    table["study_id"] = table["study_id"].mask(table["study_id"] == table["image_path"], pathless)
    table["run"] = ""
    table["sha256"] = table["sha256"].fillna("").astype("str").str.strip().str.lower()
    missing = ~table["sha256"].str.fullmatch(_HASH)
    paths = table["image_path"][missing]
    bar = progress.add_task("hashing image files", total=len(paths))
    table.loc[missing, "sha256"] = hash_files(paths.tolist(), lambda done: progress.advance(bar, done))
    return table


def _column(source: Path, name: str, rows: pd.Series) -> Any:
    """A column that pretraining does not read, for rows counted from 1; empty if the table has none."""
    if source.suffix != ".parquet" or name not in pyarrow.parquet.read_schema(source).names:
        return ""
    values = pd.read_parquet(source, columns=[name])[name]
    return values.iloc[rows.to_numpy() - 1].to_numpy(dtype=object)


def hash_files(paths: list[str], progress: Callable[[int], None]) -> list[str]:
    """sha256 of every file; empty for URLs and for what is not there (a member of a shard)."""

    def one(path: str) -> str:
        try:
            return "" if is_url(path) else sha256(Path(path))
        except OSError:
            return ""

    hashes = []
    with ThreadPoolExecutor() as pool:  # hashing releases the interpreter lock
        for found in pool.map(one, paths):
            hashes.append(found)
            progress(1)
    return hashes


def picture_sizes(stated: pd.DataFrame, paths: Sequence[str]) -> NDArray[np.int64]:
    """(k, 2) widths and heights, as a table states them or the heads of the files; 0 where nobody says.

    Args:
        stated: k rows with width and height; empty where they are not known.
        paths: k files or URLs.
    """
    numbers = stated[["width", "height"]].apply(pd.to_numeric, errors="coerce").astype(float).fillna(0)
    sizes: NDArray[np.int64] = numbers.to_numpy().round().astype(np.int64)
    for place in np.flatnonzero((sizes <= 0).any(axis=1)).tolist():
        sizes[place] = _size_of_file(paths[place])
    return sizes


def _size_of_file(path: str) -> tuple[int, int]:
    if is_url(path):
        return 0, 0
    try:
        return image_size(path)
    except UserError:  # reading it will say what is wrong
        return 0, 0


def _not_in(before: SeenFile, parts: list[_Part], run: str) -> pd.DataFrame:
    """Rows of the earlier run that this one has not, with pictures; the index says where they stand in its file."""
    frame = before.frame
    frame = frame.assign(run=frame["run"].mask(frame["run"] == "", run))
    own = pd.concat([part.frame[_KEY] for part in parts if not part.streamed])
    return frame[~pd.MultiIndex.from_frame(frame[_KEY]).isin(pd.MultiIndex.from_frame(own))]
