"""`seen.parquet`: who a run has seen, so that its leakage can be judged without its data, on another machine.

One row an image: ids, hash of the source file, and what near duplicates are found by, about 1 kB. The pictures are
32 px thumbnails of radiographs and the ids are the data's own: a run whose data may not be passed on is published
without this file, and the guard then says that nothing is known.
"""

import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.progress import Progress

from cmcgns.common.errors import UserError, one_line
from cmcgns.common.files import sha256_of_files, write_atomically
from cmcgns.data.images.files import picture_sizes
from cmcgns.data.images.near_duplicates import SIDE, SIGNATURE, Signatures, Thumbnails, square_signatures
from cmcgns.data.pairs.dataset import PairDataset
from cmcgns.data.shards.stream import ShardImages
from cmcgns.data.vocabulary import canonical_ids
from cmcgns.settings.config import Recipe
from cmcgns.training.data import PreparedData
from cmcgns.training.run_folder import RunFolder

logger = logging.getLogger(__name__)

TEXT = ("patient_id", "study_id", "dataset", "part", "sha256", "run")
ROWS = 16_384  # held in memory at once: 35 MB of signatures
_SAME = ["patient_id", "study_id", "sha256", "part"]  # in two runs: the same image
_VERSION = 1
_METADATA = b"cmcgns"
_LEVELS = 63  # 6 bits a pixel change a correlation by less than 0.001
_REPEATED = ["dataset", "part", "run"]  # values
_HASHES, _THUMBNAILS = 2 * 4 * 8, 2 * SIDE * SIDE  # bytes
_Block = tuple[pd.DataFrame, Signatures]


@dataclass(frozen=True)
class SeenFile:
    """A file that was opened.

    Attributes:
        path: the file.
        unknown: what was seen besides and is not listed, in words.
    """

    path: Path
    unknown: tuple[str, ...]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """patient_id, study_id, dataset, part (train or val), sha256, run (empty, or the one it started from)."""
        with _reading(self.path):
            frame: pd.DataFrame = pq.read_table(self.path, columns=list(TEXT)).to_pandas().astype("str")
        return frame.assign(**{name: canonical_ids(frame[name]) for name in ("patient_id", "study_id")})

    @property
    def without_picture(self) -> int:
        """Rows without a signature."""
        return int(pq.read_table(self.path, columns=["hashes"]).column(0).null_count)

    def signatures(self) -> Iterator[tuple[int, Signatures]]:
        """First row and (k,) `SIGNATURE` of one block after the other."""
        start = 0
        with _reading(self.path):
            for batch in pq.ParquetFile(self.path).iter_batches(ROWS, columns=["hashes", "thumbnails"]):
                yield start, _unpack(batch)
                start += len(batch)


def open_seen(path: Path) -> SeenFile | None:
    """The file of a run; None if there is none.

    Raises:
        UserError: it is damaged, or of another version.
    """
    if not path.is_file():
        return None
    with _reading(path):
        schema = pq.read_schema(path)
        about: dict[str, Any] = json.loads((schema.metadata or {})[_METADATA])
        version, unknown = about["version"], tuple(map(str, about["unknown"]))
        whole = set(schema.names) >= {*TEXT, "hashes", "thumbnails"}
    if version != _VERSION or not whole:
        raise UserError(f"{path}: version {version} with {', '.join(schema.names)}; this program reads {_VERSION}")
    return SeenFile(path, unknown)


def write_seen_file(path: Path, blocks: Iterable[_Block], unknown: Iterable[str] = ()) -> None:
    """Write rows block by block; the same rows give the same bytes.

    Args:
        path: the file.
        blocks: columns `TEXT` and as many signatures.
        unknown: what was seen and is not listed.
    """
    about = json.dumps({"version": _VERSION, "unknown": list(unknown)})
    columns = [(name, pa.string()) for name in TEXT]
    columns += [("hashes", pa.binary(_HASHES)), ("thumbnails", pa.binary(_THUMBNAILS))]
    schema = pa.schema(columns, metadata={_METADATA: about})

    def write(temporary: Path) -> None:
        with pq.ParquetWriter(temporary, schema, compression="zstd", use_dictionary=_REPEATED) as writer:
            for frame, signatures in blocks:
                writer.write_table(_pack(frame, signatures, schema), row_group_size=ROWS)

    write_atomically(path, write)


def _pack(frame: pd.DataFrame, signatures: Signatures, schema: Any) -> Any:
    columns = [pa.array(frame[name].astype(object), pa.string()) for name in TEXT]
    columns.append(_cells(signatures["hashes"], signatures["comparable"], _HASHES))
    columns.append(_cells(_shrink(signatures["thumbnails"]), signatures["comparable"], _THUMBNAILS))
    return pa.Table.from_arrays(columns, schema=schema)


def _cells(values: NDArray[Any], there: NDArray[np.bool_], width: int) -> Any:
    """(n, …) -> n cells of bytes, null where nothing is there."""
    content = np.ascontiguousarray(values).tobytes()
    cells = [content[row * width : (row + 1) * width] if here else None for row, here in enumerate(there.tolist())]
    return pa.array(cells, pa.binary(width))


def _unpack(batch: Any) -> Signatures:
    there = ~np.array(batch.column("hashes").is_null())
    signatures = np.zeros(len(batch), dtype=SIGNATURE)
    signatures["comparable"] = there
    hashes, small = (b"".join(batch.column(name).drop_null().to_pylist()) for name in ("hashes", "thumbnails"))
    signatures["hashes"][there] = np.frombuffer(hashes, dtype=np.uint64).reshape(-1, 2, 4)
    signatures["thumbnails"][there] = _grow(np.frombuffer(small, dtype=np.uint8).reshape(-1, 2, SIDE, SIDE))
    return signatures


def _shrink(thumbnails: Thumbnails) -> NDArray[np.uint8]:
    """(n, 2, 32, 32) in 64 levels, as differences between neighbours and between the two: they compress."""
    levels = ((thumbnails.astype(np.uint16) * _LEVELS + 127) // 255).astype(np.uint8)
    for axis in (1, 2, 3):
        levels = np.diff(levels, axis=axis, prepend=np.uint8(0))
    return levels


def _grow(levels: NDArray[np.uint8]) -> Thumbnails:
    for axis in (3, 2, 1):
        levels = np.cumsum(levels, axis=axis, dtype=np.uint8)
    grown: Thumbnails = ((levels.astype(np.uint16) * 255 + _LEVELS // 2) // _LEVELS).astype(np.uint8)
    return grown


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}: {one_line(error)}); copy it again from the run, or take "
            "it away: leakage by pretraining is then not known"
        ) from error


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
    sets = {"train": prepared.train, "val": prepared.validation}
    with Progress(transient=True) as progress:
        own = _own_rows(prepared, sets, progress)
        earlier = _not_in(before, own, init.name) if before and init else pd.DataFrame()
        bar = progress.add_task("noting which images are seen", total=len(own) + len(earlier))

        def blocks() -> Iterator[_Block]:
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
    if recipe.image_encoder.weights is not None:
        unknown.append(f"what {Path(recipe.image_encoder.weights).name} saw, the weights that the run starts from")
    return unknown


def _own_rows(prepared: PreparedData, sets: dict[str, PairDataset], progress: Progress) -> pd.DataFrame:
    """The rows of both splits, in their order: `TEXT`, image_path, width, height, and whether they are streamed."""
    pairs = prepared.pairs
    parts = [
        pairs.frame.iloc[each.rows].assign(part=part, streamed=isinstance(each.images, ShardImages))
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


def _own_blocks(own: pd.DataFrame, sets: dict[str, PairDataset]) -> Iterator[_Block]:
    for part, each in sets.items():
        table = own[own["part"] == part]
        for start in range(0, len(table), ROWS):
            frame, rows = table[start : start + ROWS], each.rows[start : start + ROWS]
            if frame["streamed"].any():
                yield frame, np.zeros(len(frame), dtype=SIGNATURE)
            else:
                yield frame, square_signatures(each.images, rows, picture_sizes(frame, frame["image_path"].tolist()))


def _earlier_blocks(before: SeenFile | None, earlier: pd.DataFrame) -> Iterator[_Block]:
    for start, signatures in before.signatures() if before and len(earlier) else ():
        frame = earlier[(earlier.index >= start) & (earlier.index < start + len(signatures))]
        if len(frame):
            yield frame, signatures[frame.index.to_numpy() - start]


def _not_in(before: SeenFile, own: pd.DataFrame, run: str) -> pd.DataFrame:
    """Rows of the earlier run that this one has not, with pictures; the index says where they stand in its file."""
    frame = before.frame.assign(run=before.frame["run"].replace("", run))
    known = pd.MultiIndex.from_frame(own.loc[~own["streamed"], _SAME])
    return frame[~pd.MultiIndex.from_frame(frame[_SAME]).isin(known)]
