"""A folder of shards, local or remote, as its `shards.json` describes it."""

import hashlib
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cmcgns.common.array_cache import cache_folder
from cmcgns.common.errors import UserError
from cmcgns.common.files import sha256 as sha256_of
from cmcgns.common.files import write_bytes, write_json
from cmcgns.common.remote import MAX_IMAGE, is_url, join, location_of, read_bytes

FORMAT = 1
INDEX = "shards.json"
_MAX_INDEX, _MAX_MANIFEST, MAX_SHARD = 2**28, 2**33, 2**33  # bytes
AGAIN = "write them again: cmcgns prepare … --shards N"


class Shard(BaseModel):
    """One tar file: its name, number of images, size in bytes and hash."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")
    name: str = Field(pattern=r"^[^/\\:?#]*\.tar$")
    split: str
    count: int = Field(ge=0)
    bytes: int = Field(ge=0, le=MAX_SHARD)
    sha256: str

    def is_whole(self, folder: Path) -> bool:
        """Whether the file in a folder is the one that was written."""
        file = folder / self.name
        return file.is_file() and file.stat().st_size == self.bytes and sha256_of(file) == self.sha256


class Index(BaseModel):
    """What `shards.json` says.

    Attributes:
        format: of the folder.
        complete: whether all is written; no reader takes another folder.
        manifest_sha256: of `manifest.parquet`, once that is written.
        digest: of all that the shards were made from.
        shards: in the order of writing.
        left_out: shard, row (of the prepared manifest, from 1), image_path and reason of images that are in none.
    """

    model_config = ConfigDict(strict=True)
    format: int = FORMAT
    complete: bool = False
    manifest_sha256: str | None = None
    digest: str = ""
    shards: list[Shard] = []
    left_out: list[dict[str, Any]] = []

    def write(self, folder: Path) -> Path:
        """Write `shards.json`."""
        write_json(folder / INDEX, self.model_dump())
        return folder / INDEX


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

    def read(self, name: str) -> dict[str, bytes]:
        """The images of a shard by member name, still compressed; nothing is unpacked to a disk.

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
        members = _images(content, where)
        if len(members) != shard.count:
            raise UserError(f"{where}: {len(members)} images instead of {shard.count}; {AGAIN}")
        if hashlib.sha256(content).hexdigest() != shard.sha256:
            raise UserError(f"{where}: damaged (its sha256 differs from {INDEX}); {AGAIN}")
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
    stated = _parse(content, where)
    index, manifest = Path(where), join(location, "manifest.parquet")
    if is_url(location):
        cached = cache_folder() / "shards" / hashlib.sha256(content).hexdigest()[:24]
        index = cached / INDEX
        write_bytes(index, content)
        if not _is(cached / "manifest.parquet", stated.manifest_sha256):
            write_bytes(cached / "manifest.parquet", read_bytes(manifest, _MAX_MANIFEST))
        local = cached / "manifest.parquet"
    else:
        local = Path(manifest)
    if not _is(local, stated.manifest_sha256):
        raise UserError(f"{manifest}: missing, or not the one that {INDEX} belongs to; {AGAIN}")
    return ShardFolder(location, index, local, {shard.name: shard for shard in stated.shards})


def _is(file: Path, sha256: str | None) -> bool:
    return file.is_file() and sha256_of(file) == sha256


def _parse(content: bytes, where: str) -> Index:
    try:
        index = Index.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(f"{where}: corrupt ({f'{key}: ' if key else ''}{first['msg']}); {AGAIN}") from error
    if index.format != FORMAT:
        raise UserError(f"{where}: format {index.format}; this version reads {FORMAT}; {AGAIN}")
    if not index.complete:
        raise UserError(f"{where}: the shards are not finished; the same command again goes on")
    return index


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


def written_before(out: Path) -> Index:
    """What an earlier call wrote into a folder; empty where there is nothing, or nothing of ours."""
    try:
        return Index.model_validate_json((out / INDEX).read_bytes())
    except (OSError, ValidationError):
        return Index()
