"""One tar shard: images that can be decoded, each beside its row of the manifest as JSON."""

import io
import json
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cmcgns.common.errors import UserError
from cmcgns.common.files import sha256, write_atomically
from cmcgns.common.remote import MAX_IMAGE, NamedBytes, is_url, read_bytes
from cmcgns.data.images.files import STORED, open_picture
from cmcgns.data.images.place import resize
from cmcgns.data.images.read import encode_image, gray_of, read_image
from cmcgns.data.shards.index import Shard

SUFFIXES = {".jpg": "jpg", ".jpeg": "jpg", ".png": "png"}
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
        suffixes = [SUFFIXES.get(suffix_of(path), "") for path in paths.iloc[self.rows]]
        return [f"{self.split or 'all'}-{self.first + place:08d}.{suffix}" for place, suffix in enumerate(suffixes)]


@dataclass(frozen=True)
class WrittenShard:
    """A shard that is there: its entry in the index, and the rows (from 1) that are not in it, with reasons."""

    shard: Shard
    left_out: list[dict[str, Any]]

    def is_whole(self, out: Path) -> bool:
        """Whether the file is the one that was written."""
        file = out / self.shard.name
        return file.is_file() and file.stat().st_size == self.shard.bytes and sha256(file) == self.shard.sha256


def suffix_of(path: str) -> str:
    """`.jpg` of a path, or of a URL with a query."""
    return Path(path.split("?")[0] if is_url(path) else path).suffix.lower()


def write_shard(plan: ShardPlan, frame: pd.DataFrame, files: list[str], size: int | None, out: Path) -> WrittenShard:
    """Write one shard; images that cannot be decoded are left out.

    Args:
        plan: which rows.
        frame: the whole manifest, its width and height those of the shards' images.
        files: path or URL of every row's image.
        size: resize larger images to this long side.
        out: folder.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside the interpreter lock
        images = list(pool.map(lambda row: _read(files[row], size), plan.rows))
    rows = frame.iloc[plan.rows]
    texts = rows.drop(columns=["image_path", "mask_path"]).to_json(orient="records", force_ascii=False)
    members: list[tuple[str, bytes]] = []
    left_out: list[dict[str, Any]] = []
    entries = zip(plan.rows, plan.members(frame["image_path"]), images, json.loads(texts), strict=True)
    for row, name, image, facts in entries:
        if isinstance(image, UserError):
            path = frame["image_path"].iloc[row]
            left_out.append({"shard": plan.name, "row": int(row) + 1, "image_path": path, "reason": str(image)})
            continue
        stated = {column: value for column, value in facts.items() if value not in (None, "")}
        text = json.dumps(stated, ensure_ascii=False).encode()
        members += [(name, image), (name.rsplit(".", 1)[0] + ".json", text)]
    if not members:
        return WrittenShard(Shard(plan.name, plan.split, 0, 0, ""), left_out)
    file = out / plan.name
    write_atomically(file, lambda temporary: _write_tar(temporary, members))
    shard = Shard(plan.name, plan.split, len(members) // 2, file.stat().st_size, sha256(file))
    return WrittenShard(shard, left_out)


def _write_tar(file: Path, members: list[tuple[str, bytes]]) -> None:
    """The same bytes for the same members: no times, no owners."""
    with tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))


def _read(file: str, size: int | None) -> bytes | UserError:
    """The stored bytes of an image that can be decoded; the error of one that cannot."""
    try:
        if suffix_of(file) not in SUFFIXES:
            raise UserError(f"{file}: not named .jpg, .jpeg or .png")
        source = NamedBytes(read_bytes(file, MAX_IMAGE), file)
        read_image(source, _LOOK, STORED)
        return source.getvalue() if size is None else _resized(source, size)
    except UserError as error:
        return error


def _resized(file: NamedBytes, size: int) -> bytes:
    with open_picture(file) as image:
        if max(image.size) <= size:
            return file.getvalue()
        lossless, pixels = image.format == "PNG", resize(gray_of(image), size)
    return encode_image(pixels, np.iinfo(pixels.dtype).max, lossless)
