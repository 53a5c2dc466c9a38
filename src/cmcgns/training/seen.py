"""`seen.parquet`: who a run has seen, so that its leakage can be judged without its data, on another machine.

One row an image: ids, hash of the source file, and what near duplicates are found by, about 1 kB; also the row of the
table and hashes of what entered, which `--resume` goes by. The pictures are 32 px thumbnails of radiographs and the
ids are the data's own: a run whose data may not be passed on is published without this file, and the guard then says
that nothing is known.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cmcgns.common.errors import UserError
from cmcgns.common.files import write_atomically
from cmcgns.common.stored import naming_damage
from cmcgns.data.images.near_duplicates import SIDE, SIGNATURE, Signatures, Thumbnails
from cmcgns.data.vocabulary import canonical_ids

TEXT = ("patient_id", "study_id", "dataset", "part", "sha256", "run")
ROWS = 16_384  # held in memory at once: 35 MB of signatures
ENTERED = ("row", "entry", "pixels")
_VERSION = 1
_METADATA = b"cmcgns"
_LEVELS = 63  # 6 bits a pixel change a correlation by less than 0.001
_REPEATED = ["dataset", "part", "run"]  # values
_HASHES, _THUMBNAILS = 2 * 4 * 8, 2 * SIDE * SIDE  # bytes
_WAY_OUT = "copy it again from the run, or take it away: leakage by pretraining is then not known"
Block = tuple[pd.DataFrame, Signatures]


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
    def entered(self) -> pd.DataFrame | None:
        """part, sha256 and `ENTERED` (whole numbers or missing) of own rows; None in a file of an earlier version."""
        with _reading(self.path):
            if not set(ENTERED) <= set(pq.read_schema(self.path).names):
                return None
            table = pq.read_table(self.path, columns=["part", "run", "sha256", *ENTERED])
            frame: pd.DataFrame = table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
        return frame[frame["run"] == ""].drop(columns="run")

    @property
    def without_picture(self) -> int:
        """Rows without a signature."""
        with _reading(self.path):
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


def write_seen_file(path: Path, blocks: Iterable[Block], unknown: Iterable[str] = ()) -> None:
    """Write rows block by block; the same rows give the same bytes.

    Args:
        path: the file.
        blocks: columns `TEXT`, may be `ENTERED`, and as many signatures.
        unknown: what was seen and is not listed.
    """
    about = json.dumps({"version": _VERSION, "unknown": list(unknown)})
    columns = [(name, pa.string()) for name in TEXT]
    columns += [(name, pa.int64()) for name in ENTERED]
    columns += [("hashes", pa.binary(_HASHES)), ("thumbnails", pa.binary(_THUMBNAILS))]
    schema = pa.schema(columns, metadata={_METADATA: about})

    def write(temporary: Path) -> None:
        with pq.ParquetWriter(temporary, schema, compression="zstd", use_dictionary=_REPEATED) as writer:
            for frame, signatures in blocks:
                writer.write_table(_pack(frame, signatures, schema), row_group_size=ROWS)

    write_atomically(path, write)


def _pack(frame: pd.DataFrame, signatures: Signatures, schema: Any) -> Any:
    columns = [pa.array(frame[name].astype(object), pa.string()) for name in TEXT]
    columns += [_integers(frame[name]) if name in frame else pa.nulls(len(frame), pa.int64()) for name in ENTERED]
    columns.append(_cells(signatures["hashes"], signatures["comparable"], _HASHES))
    columns.append(_cells(_shrink(signatures["thumbnails"]), signatures["comparable"], _THUMBNAILS))
    return pa.Table.from_arrays(columns, schema=schema)


def _integers(values: pd.Series) -> Any:
    return pa.array(values.astype("Int64"), pa.int64(), from_pandas=True)


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


def _reading(path: Path) -> AbstractContextManager[None]:
    return naming_damage(path, _WAY_OUT, pa.ArrowException)
