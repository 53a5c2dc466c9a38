"""A folder of shards, local or remote, as its `shards.json` describes it."""

import hashlib
import io
import json
import re
import tarfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cmcgns.common.array_cache import cache_folder
from cmcgns.common.errors import UserError
from cmcgns.common.files import sha256 as sha256_of
from cmcgns.common.files import write_bytes, write_json
from cmcgns.common.remote import MAX_IMAGE, is_url, join, location_of, read_bytes

FORMAT = 1
INDEX = "shards.json"
_MAX_INDEX, _MAX_MANIFEST, _MAX_SHARD = 2**28, 2**33, 2**33  # bytes
AGAIN = "write them again: cmcgns prepare … --shards N"


@dataclass(frozen=True)
class Shard:
    """One tar file: its name, number of images, size in bytes and hash."""

    name: str
    split: str
    count: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class WrittenShard:
    """A shard that is there: its entry in the index, and the rows (from 1) that are not in it, with reasons."""

    shard: Shard
    left_out: list[dict[str, Any]]

    def is_whole(self, out: Path) -> bool:
        """Whether the file is the one that was written."""
        file = out / self.shard.name
        return file.is_file() and file.stat().st_size == self.shard.bytes and sha256_of(file) == self.shard.sha256


@dataclass(frozen=True)
class ShardFolder:
    """Shards that can be read.

    Attributes:
        location: folder, as path or URL.
        index: local file with the content of `shards.json`.
        manifest: local file with the content of `manifest.parquet`.
        shards: by name.
    """

    location: str
    index: Path
    manifest: Path
    shards: dict[str, Shard]

    def read(self, name: str, verify: bool = False) -> dict[str, bytes]:
        """The images of a shard by member name, still compressed; nothing is unpacked to a disk.

        Args:
            name: of the shard.
            verify: compare the hash too; size and count are always compared.

        Raises:
            UserError: missing, truncated or another file than the one that was written.
        """
        shard, where = self.shards[name], join(self.location, name)
        content = read_bytes(where, shard.bytes + 1, cut=True)
        if len(content) != shard.bytes:
            wrong = f"{len(content):,} bytes instead of {shard.bytes:,}: truncated"
            raise UserError(
                f"{where}: {wrong if len(content) < shard.bytes else 'longer than it was written'}; {AGAIN}"
            )
        if verify and hashlib.sha256(content).hexdigest() != shard.sha256:
            raise UserError(f"{where}: damaged (its sha256 differs from {INDEX}); {AGAIN}")
        members = _images(content, where)
        if len(members) != shard.count:
            raise UserError(f"{where}: {len(members)} images instead of {shard.count}; {AGAIN}")
        return members


def open_shards(data: Path | str) -> ShardFolder | None:
    """The shards in a folder; None for a local folder or table that has no `shards.json`.

    A remote folder's index and manifest are copied to the cache.

    Raises:
        UserError: a URL without `shards.json`, or a corrupt or unfinished one.
    """
    location = location_of(data)
    where = join(location, INDEX)
    if not is_url(location) and not Path(where).is_file():
        return None
    try:
        content = read_bytes(where, _MAX_INDEX)
    except UserError as error:
        raise UserError(f"{error} (a URL is expected to be a folder of shards)") from error
    stated, shards = _parse(content, where)
    index, manifest = Path(where), join(location, "manifest.parquet")
    if is_url(location):
        cached = cache_folder() / "shards" / hashlib.sha256(content).hexdigest()[:24]
        index = cached / INDEX
        write_bytes(index, content)
        if not _is(cached / "manifest.parquet", stated):
            write_bytes(cached / "manifest.parquet", read_bytes(manifest, _MAX_MANIFEST))
        local = cached / "manifest.parquet"
    else:
        local = Path(manifest)
    if not _is(local, stated):
        raise UserError(f"{manifest}: missing, or not the one that {INDEX} belongs to; {AGAIN}")
    return ShardFolder(location, index, local, shards)


def _is(file: Path, sha256: str) -> bool:
    return file.is_file() and sha256_of(file) == sha256


def _parse(content: bytes, where: str) -> tuple[str, dict[str, Shard]]:
    """The manifest's hash and the shards."""
    try:
        index: dict[str, Any] = json.loads(content)
        version, complete, manifest = index["format"], index["complete"], index["manifest_sha256"]
        shards = [Shard(**entry) for entry in index["shards"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{where}: corrupt ({type(error).__name__}: {error}); {AGAIN}") from error
    if version != FORMAT:
        raise UserError(f"{where}: format {version!r}; this version reads {FORMAT}; {AGAIN}")
    if complete is not True:
        raise UserError(f"{where}: the shards are not finished; the same command again goes on")
    for shard in shards:
        _check(shard, where)
    return str(manifest), {shard.name: shard for shard in shards}


def _check(shard: Shard, where: str) -> None:
    whole = all(isinstance(value, int) and value >= 0 for value in (shard.count, shard.bytes))
    plain = isinstance(shard.name, str) and shard.name.endswith(".tar") and not set(shard.name) & set("/\\:?#")
    if not whole or not plain or shard.bytes > _MAX_SHARD:
        raise UserError(f"{where}: corrupt (shard {shard.name!r}, {shard.count!r} images, {shard.bytes!r} bytes)")


def _images(content: bytes, where: str) -> dict[str, bytes]:
    members = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            for member in tar:
                if not member.isreg() or member.name.endswith(".json"):
                    continue
                if member.size > MAX_IMAGE:
                    raise UserError(f"{where}: {member.name} has {member.size:,} bytes; the bound is {MAX_IMAGE:,}")
                members[member.name] = content[member.offset_data : member.offset_data + member.size]
    except tarfile.TarError as error:
        raise UserError(f"{where}: not a whole tar file ({error}); {AGAIN}") from error
    return members


def written_before(out: Path, digest: str) -> tuple[dict[str, WrittenShard], set[str]]:
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


def write_index(out: Path, written: list[WrittenShard], digest: str, manifest: str | None = None) -> Path:
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
