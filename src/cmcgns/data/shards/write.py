"""From a prepared folder to WebDataset tar shards that pretraining streams.

    train-000000.tar        train-00000000.jpg, train-00000000.json, train-00000001.jpg, …
    manifest.parquet        the prepared manifest, in its order, with the columns `shard` and `position`
    shards.json             every shard's count, bytes and sha256, and what was left out

Images are kept as their files' bytes. The rows of a split are shuffled once, so that a shard is a sample of it. Masks
stay with the prepared folder (`mask_path` is empty here).
"""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cmcgns.common.errors import UserError
from cmcgns.common.files import sha256, write_json
from cmcgns.data.images.place import scaled_size
from cmcgns.data.manifest import image_file, read_manifest, write_manifest
from cmcgns.data.shards.index import FORMAT, INDEX, Shard
from cmcgns.data.shards.tar import ShardPlan, WrittenShard, write_shard


def write_shards(
    manifest_folder: Path,
    out: Path,
    per_shard: int = 1000,
    size: int | None = None,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Write the shards of a prepared folder; a second call writes only those that are missing or damaged.

    Images that cannot be read are left out and listed in `shards.json` with the reason.

    Args:
        manifest_folder: folder with `manifest.parquet`.
        out: another folder.
        per_shard: images a shard.
        size: resize larger images to this long side (boxes, which are in pixels, are then dropped); None keeps them.
        seed: of the order within a split.
        progress: called with the number of rows done since the last call.

    Returns:
        Path of `shards.json`.

    Raises:
        UserError: no manifest, no readable image, or impossible arguments.
    """
    _check_call(manifest_folder, out, per_shard, size)
    frame = read_manifest(manifest_folder)
    files = [image_file(manifest_folder, path) for path in frame["image_path"]]
    digest = _digest(manifest_folder, files, [FORMAT, per_shard, size, seed])
    if size is not None:
        frame = _resized_frame(frame, size)
    before, stale = _previous(out, digest)
    plans, written = _plan(frame["split"], per_shard, seed), list[WrittenShard]()
    for plan in plans:
        known = before.get(plan.name)
        if known is not None and known.is_whole(out):
            written.append(known)
        else:
            written.append(write_shard(plan, frame, files, size, out))
            _write_index(out, written, digest)
        if progress is not None:
            progress(len(plan.rows))
    manifest = _manifest(frame, plans, written)
    if len(manifest) == 0:
        reasons = [entry["reason"] for each in written for entry in each.left_out]
        raise UserError(f"{manifest_folder}: no image could be read ({reasons[0] if reasons else 'no rows'})")
    write_manifest(manifest, out / "manifest.parquet")
    for name in stale - {each.shard.name for each in written if each.shard.count}:
        (out / name).unlink(missing_ok=True)
    return _write_index(out, written, digest, sha256(out / "manifest.parquet"))


def _check_call(folder: Path, out: Path, per_shard: int, size: int | None) -> None:
    if per_shard < 1:
        raise UserError(f"--shards {per_shard}: at least one image a shard is needed")
    if size is not None and size < 32:
        raise UserError(f"size {size} is too small for a radiograph; take 32 or more")
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; `cmcgns prepare` writes one")
    if out.resolve() == folder.resolve():
        raise UserError(f"{out}: shards have a manifest of their own; choose another folder than the prepared one")


def _plan(splits: pd.Series, per_shard: int, seed: int) -> list[ShardPlan]:
    plans = []
    for split in sorted(splits.unique()):
        if not re.fullmatch(r"[A-Za-z0-9_-]*", split):
            raise UserError(f"split {split!r} cannot be part of a file name; use letters, digits, - and _")
        rows = np.random.default_rng([seed, *split.encode()]).permutation(np.flatnonzero(splits == split))
        for first in range(0, len(rows), per_shard):
            plans.append(ShardPlan(split, first // per_shard, first, rows[first : first + per_shard]))
    return plans


def _digest(folder: Path, files: list[str], settings: list[Any]) -> str:
    """Changes whenever a second call would write other shards."""
    digest = hashlib.sha256(json.dumps([settings, sha256(folder / "manifest.parquet")]).encode())
    for file in files:
        try:
            stat = Path(file).stat()
            digest.update(f"{stat.st_size} {stat.st_mtime_ns}\n".encode())
        except OSError:  # a URL, or missing: reading it will say so
            digest.update(b"\n")
    return digest.hexdigest()


def _previous(out: Path, digest: str) -> tuple[dict[str, WrittenShard], set[str]]:
    """Shards of an earlier call with the same input, and the names of all that an earlier call wrote."""
    try:
        index = json.loads((out / INDEX).read_bytes())
        shards = [Shard(**entry) for entry in index["shards"]]
        stale = {shard.name for shard in shards if re.fullmatch(r"[\w-]+\.tar", shard.name)}
        left_out: dict[str, list[dict[str, Any]]] = {shard.name: [] for shard in shards}
        for entry in index["left_out"]:
            left_out.setdefault(entry["shard"], []).append(entry)
        same = index["digest"] == digest
    except (OSError, ValueError, KeyError, TypeError):  # none, or not ours: everything is written
        return {}, set()
    return {shard.name: WrittenShard(shard, left_out[shard.name]) for shard in shards if same}, stale


def _write_index(out: Path, written: list[WrittenShard], digest: str, manifest: str | None = None) -> Path:
    """Without the manifest's hash the index is that of an unfinished folder, which no reader takes."""
    content = {
        "format": FORMAT,
        "complete": manifest is not None,
        "manifest_sha256": manifest,
        "digest": digest,
        "shards": [asdict(each.shard) for each in written if each.shard.count],
        "left_out": [entry for each in written for entry in each.left_out],
    }
    write_json(out / INDEX, content)
    return out / INDEX


def _resized_frame(frame: pd.DataFrame, size: int) -> pd.DataFrame:
    known = frame[["width", "height"]].fillna(0).to_numpy(dtype=np.int64)
    sizes = np.array([scaled_size(width, height, size) if width and height else (0, 0) for width, height in known])
    resized = pd.DataFrame(sizes.reshape(-1, 2), columns=["width", "height"], index=frame.index, dtype="Int32")
    resized = resized.where(resized > 0)
    return frame.assign(boxes="", width=resized["width"], height=resized["height"])


def _manifest(frame: pd.DataFrame, plans: list[ShardPlan], written: list[WrittenShard]) -> pd.DataFrame:
    """The rows that are in a shard, in their old order; `position` counts the images of a shard."""
    paths, shards = (np.full(len(frame), "", dtype=object) for _ in range(2))
    positions = np.full(len(frame), -1, dtype=np.int64)
    for plan, each in zip(plans, written, strict=True):
        kept = ~np.isin(plan.rows, [entry["row"] - 1 for entry in each.left_out])
        rows, names = plan.rows[kept], np.array(plan.members(frame["image_path"]), dtype=object)[kept]
        paths[rows] = [f"{plan.name}/{name}" for name in names]
        shards[rows], positions[rows] = plan.name, np.arange(len(rows))
    frame = frame.assign(image_path=paths, mask_path="", shard=shards, position=positions.astype(np.int32))
    return frame[positions >= 0].reset_index(drop=True)
