"""What a run notes in `seen.parquet` when it starts: its own images, and those that its weights come from."""

import logging
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.progress import Progress

from cmcgns.common.files import sha256_of_files
from cmcgns.data.images.files import picture_sizes
from cmcgns.data.images.near_duplicates import SIGNATURE, square_signatures
from cmcgns.data.pairs.dataset import PairDataset
from cmcgns.data.shards.stream import ShardImages
from cmcgns.settings.config import Recipe
from cmcgns.training.data import PreparedData
from cmcgns.training.resumed_rows import entry_stamps, pixel_stamps
from cmcgns.training.run_folder import RunFolder
from cmcgns.training.seen import ROWS, Block, SeenFile, open_seen, write_seen_file

logger = logging.getLogger(__name__)

_SAME = ["patient_id", "study_id", "sha256", "part"]  # in two runs: the same image


def write_seen(folder: RunFolder, prepared: PreparedData, recipe: Recipe, init: Path | None) -> dict[str, Any]:
    """Write `seen.parquet`: every training and validation image, and those of the run whose weights it starts from.

    Pixels that are streamed from shards are not compared, because reading them takes as long as an epoch.

    Returns:
        Counts for provenance.json.
    """
    before = open_seen(RunFolder(init).seen) if init else None
    unknown = _not_listed(folder, recipe, init, before)
    sets = {"train": prepared.train, "val": prepared.validation}
    with Progress(transient=True) as progress:
        own = _own_rows(prepared, sets, progress)
        earlier = _not_in(before, own, init.name) if before and init else pd.DataFrame()
        bar = progress.add_task("noting which images are seen", total=len(own) + len(earlier))

        def blocks() -> Iterator[Block]:
            for block in chain(_own_blocks(own, sets), _earlier_blocks(before, earlier)):
                yield block
                progress.advance(bar, len(block[0]))

        write_seen_file(folder.seen, blocks(), unknown)
    if streamed := int(own["streamed"].sum()):
        logger.info(
            "%s: pictures of %d streamed images are not noted; leakage is judged by their ids and file hashes",
            folder.seen.name, streamed,
        )  # fmt: skip
    pictures = len(own) + len(earlier) - SeenFile(folder.seen, ()).without_picture
    return {"images": len(own), "of_init": len(earlier), "pictures": pictures, "unknown": unknown}


def _not_listed(folder: RunFolder, recipe: Recipe, init: Path | None, before: SeenFile | None) -> list[str]:
    unknown = list(before.unknown) if before else []
    if init and before is None:
        unknown.append(f"what {init.name} saw, which the run starts from (it has no {folder.seen.name})")
    if init is None and recipe.image_encoder.weights is not None:  # else they are not read
        unknown.append(f"what {Path(recipe.image_encoder.weights).name} saw, the weights that the run starts from")
    return unknown


def _own_rows(prepared: PreparedData, sets: dict[str, PairDataset], progress: Progress) -> pd.DataFrame:
    """The rows of both splits, in their order: `TEXT`, image_path, width, height, and whether they are streamed."""
    pairs = prepared.pairs
    frame = pairs.frame.assign(entry=entry_stamps(pairs))
    parts = [
        frame.iloc[each.rows].assign(part=part, streamed=isinstance(each.images, ShardImages))
        for part, each in sets.items()
    ]
    table = pd.concat(parts, ignore_index=True)
    table = table.assign(run="", **{name: "" for name in ("sha256", "width", "height") if name not in table})
    # Ids that stand for missing ones are paths of this machine: no patient, and a study only below its table.
    table["patient_id"] = table["patient_id"].mask(table["patient_id"] == table["image_path"], "")
    pathless = table["image_path"].str.removeprefix(f"{pairs.source.parent.resolve()}/")
    table["study_id"] = table["study_id"].mask(table["study_id"] == table["image_path"], pathless)
    table["sha256"] = table["sha256"].fillna("").astype("str").str.strip().str.lower()
    missing = ~table["sha256"].str.fullmatch("[0-9a-f]{64}")
    paths = table["image_path"][missing]
    bar = progress.add_task("hashing image files", total=len(paths))
    table.loc[missing, "sha256"] = sha256_of_files(paths.tolist(), lambda done: progress.advance(bar, done))
    return table


def _own_blocks(own: pd.DataFrame, sets: dict[str, PairDataset]) -> Iterator[Block]:
    for part, each in sets.items():
        table = own[own["part"] == part]
        for start in range(0, len(table), ROWS):
            frame, rows = table[start : start + ROWS], each.rows[start : start + ROWS]
            if frame["streamed"].any():
                yield frame, np.zeros(len(frame), dtype=SIGNATURE)
            else:
                sizes = picture_sizes(frame, frame["image_path"].tolist())
                stamped = frame.assign(pixels=pixel_stamps(each.images, rows))
                yield stamped, square_signatures(each.images, rows, sizes)


def _earlier_blocks(before: SeenFile | None, earlier: pd.DataFrame) -> Iterator[Block]:
    for start, signatures in before.signatures() if before and len(earlier) else ():
        frame = earlier[(earlier.index >= start) & (earlier.index < start + len(signatures))]
        if len(frame):
            yield frame, signatures[frame.index.to_numpy() - start]


def _not_in(before: SeenFile, own: pd.DataFrame, run: str) -> pd.DataFrame:
    """Rows of the earlier run that this one has not, with pictures; the index says where they stand in its file."""
    frame = before.frame.assign(run=before.frame["run"].replace("", run))
    known = pd.MultiIndex.from_frame(own.loc[~own["streamed"], _SAME])
    return frame[~pd.MultiIndex.from_frame(frame[_SAME]).isin(known)]
