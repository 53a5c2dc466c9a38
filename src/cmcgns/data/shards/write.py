"""From a prepared folder to WebDataset tar shards that pretraining streams.

    train-000000.tar        train-00000000.jpg, train-00000000.json, train-00000001.jpg, …
    manifest.parquet        the prepared manifest, in its order, with the columns `shard` and `position`
    shards.json             every shard's count, bytes and sha256, and what was left out

Images are kept as their files' bytes. The rows of a split are shuffled once, so that a shard is a sample of it. Masks
stay with the prepared folder (`mask_path` is empty here).
"""

import hashlib
import io
import json
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cmcgns.common.errors import UserError
from cmcgns.common.files import file_stamp, sha256, write_atomically
from cmcgns.common.processes import in_threads
from cmcgns.common.remote import MAX_IMAGE, NamedBytes, is_url, read_bytes
from cmcgns.data.images.files import STORED
from cmcgns.data.images.read import read_image
from cmcgns.data.manifest import read_manifest, write_manifest
from cmcgns.data.paths import image_file
from cmcgns.data.shards.index import FORMAT, MAX_SHARD, Index, Shard, written_before

_SUFFIXES = {".jpg": "jpg", ".jpeg": "jpg", ".png": "png"}
_SEED = 0  # of the order within a split
_LOOK = 32  # side at which an image is decoded to see that it can be


@dataclass(frozen=True)
class ShardPlan:
    """A shard to be.

    Attributes:
        split: whose rows they are.
        number: of the shard within its split.
        first: number of its first row within the split.
        rows: of the manifest, in the shard's order.
    """

    split: str
    number: int
    first: int
    rows: NDArray[np.int64]

    @property
    def name(self) -> str:
        """File name."""
        return f"{self.split or 'all'}-{self.number:06d}.tar"

    def members(self, paths: pd.Series) -> list[str]:
        """Names of the rows' images: keys are unique among all shards and free of dots.

        Args:
            paths: `image_path` of the whole manifest; gives the suffixes.
        """
        suffixes = [_SUFFIXES.get(_suffix_of(path), "") for path in paths.iloc[self.rows]]
        return [f"{self.split or 'all'}-{self.first + place:08d}.{suffix}" for place, suffix in enumerate(suffixes)]


def _suffix_of(path: str) -> str:
    """`.jpg` of a path, or of a URL with a query."""
    return Path(path.split("?")[0] if is_url(path) else path).suffix.lower()


def write_shards(manifest_folder: Path, out: Path, per_shard: int = 1000) -> Path:
    """Write the shards of a prepared folder; a second call writes only those that are missing or damaged.

    Images that cannot be read are left out and listed in `shards.json` with the reason.

    Args:
        manifest_folder: folder with `manifest.parquet`.
        out: another folder.
        per_shard: images a shard.

    Returns:
        Path of `shards.json`.

    Raises:
        UserError: no manifest, no readable image, or impossible arguments.
    """
    _check_call(manifest_folder, out, per_shard)
    frame = read_manifest(manifest_folder)
    files = [image_file(manifest_folder, path) for path in frame["image_path"]]
    digest = _digest(manifest_folder, files, [FORMAT, per_shard, None, _SEED])  # None: no other size of the images
    before, index, plans = written_before(out), Index(digest=digest), _plan(frame["split"], per_shard)
    known = {shard.name: shard for shard in before.shards if before.digest == digest}
    for plan in plans:
        if plan.name in known and known[plan.name].is_whole(out):
            index.shards.append(known[plan.name])
            index.left_out += [entry for entry in before.left_out if entry.get("shard") == plan.name]
        else:
            write_shard(plan, frame, files, out, index)
            index.write(out)
    manifest = _manifest(frame, plans, index.left_out)
    if len(manifest) == 0:
        reason = index.left_out[0]["reason"] if index.left_out else "no rows"
        raise UserError(f"{manifest_folder}: no image could be read ({reason})")
    write_manifest(manifest, out / "manifest.parquet")
    for name in {shard.name for shard in before.shards} - {shard.name for shard in index.shards}:
        (out / name).unlink(missing_ok=True)
    index.complete, index.manifest_sha256 = True, sha256(out / "manifest.parquet")
    return index.write(out)


def _check_call(folder: Path, out: Path, per_shard: int) -> None:
    if per_shard < 1:
        raise UserError(f"--shards {per_shard}: at least one image a shard is needed")
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; `cmcgns prepare` writes one")
    if out.resolve() == folder.resolve():
        raise UserError(f"{out}: shards have a manifest of their own; choose another folder than the prepared one")


def _plan(splits: pd.Series, per_shard: int) -> list[ShardPlan]:
    plans = []
    for split in sorted(splits.unique()):
        if not re.fullmatch(r"[A-Za-z0-9_-]*", split):
            raise UserError(f"split {split!r} cannot be part of a file name; use letters, digits, - and _")
        rows = np.random.default_rng([_SEED, *split.encode()]).permutation(np.flatnonzero(splits == split))
        for first in range(0, len(rows), per_shard):
            plans.append(ShardPlan(split, first // per_shard, first, rows[first : first + per_shard]))
    return plans


def _digest(folder: Path, files: list[str], settings: list[Any]) -> str:
    """Changes whenever a second call would write other shards."""
    digest = hashlib.sha256(json.dumps([settings, sha256(folder / "manifest.parquet")]).encode())
    for file in files:
        digest.update((" ".join(map(str, file_stamp(file))) + "\n").encode())
    return digest.hexdigest()


def _manifest(frame: pd.DataFrame, plans: list[ShardPlan], left_out: list[dict[str, Any]]) -> pd.DataFrame:
    """The rows that are in a shard, in their old order; `position` counts the images of a shard."""
    paths, shards = (np.full(len(frame), "", dtype=object) for _ in range(2))
    positions = np.full(len(frame), -1, dtype=np.int64)
    missing = np.array([entry["row"] - 1 for entry in left_out], dtype=np.int64)
    for plan in plans:
        kept = ~np.isin(plan.rows, missing)
        rows, names = plan.rows[kept], np.array(plan.members(frame["image_path"]), dtype=object)[kept]
        paths[rows] = [f"{plan.name}/{name}" for name in names]
        shards[rows], positions[rows] = plan.name, np.arange(len(rows))
    frame = frame.assign(image_path=paths, mask_path="", shard=shards, position=positions.astype(np.int32))
    return frame[positions >= 0].reset_index(drop=True)


def write_shard(plan: ShardPlan, frame: pd.DataFrame, files: list[str], out: Path, index: Index) -> None:
    """Write one shard and note it in the index; images that cannot be decoded are left out.

    Args:
        plan: which rows.
        frame: the whole manifest.
        files: path or URL of every row's image.
        out: folder.
        index: gets the shard, unless it would be empty, and what is left out.
    """
    images = in_threads(lambda row: _read(files[row]), plan.rows.tolist())
    rows = frame.iloc[plan.rows]
    texts = rows.drop(columns=["image_path", "mask_path"]).to_json(orient="records", force_ascii=False)
    members: list[tuple[str, bytes]] = []
    entries = zip(plan.rows, plan.members(frame["image_path"]), images, json.loads(texts), strict=True)
    for row, name, image, facts in entries:
        if isinstance(image, UserError):
            path = frame["image_path"].iloc[row]
            index.left_out.append({"shard": plan.name, "row": int(row) + 1, "image_path": path, "reason": str(image)})
            continue
        stated = {column: value for column, value in facts.items() if value not in (None, "")}
        text = json.dumps(stated, ensure_ascii=False).encode()
        members += [(name, image), (name.rsplit(".", 1)[0] + ".json", text)]
    if members:
        file = out / plan.name
        write_atomically(file, lambda temporary: _write_tar(temporary, members))
        if file.stat().st_size > MAX_SHARD:
            raise UserError(f"{file}: more than the bound of {MAX_SHARD:,} bytes; write smaller ones (--shards N)")
        index.shards.append(
            Shard(
                name=plan.name, split=plan.split, count=len(members) // 2,
                bytes=file.stat().st_size, sha256=sha256(file),
            )
        )  # fmt: skip


def _write_tar(file: Path, members: list[tuple[str, bytes]]) -> None:
    """The same bytes for the same members: no times, no owners."""
    with tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))


def _read(file: str) -> bytes | UserError:
    """The stored bytes of an image that can be decoded; the error of one that cannot."""
    try:
        if _suffix_of(file) not in _SUFFIXES:
            raise UserError(f"{file}: not named .jpg, .jpeg or .png")
        source = NamedBytes(read_bytes(file, MAX_IMAGE), file)
        read_image(source, _LOOK, STORED)
        return source.getvalue()
    except UserError as error:
        return error
