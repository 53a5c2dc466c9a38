"""What a frozen encoder makes of images: pooled features and maps of its stages, kept on disk, and patch tokens.

Maps are kept in half precision, pooled features as float32: half precision would save 0.8 GB of 1.6 for 190,000
images of 2,048 features, but overflows above 65,504, and features that differ in the eleventh bit would tie, which a
ranking metric notices. Tokens are made a few images at a time: of a whole split they would not fit into memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cmcgns.common.array_cache import MappedArray, cached_array
from cmcgns.common.errors import UserError
from cmcgns.common.files import file_stamp, free_bytes
from cmcgns.data.images.place import Pixels
from cmcgns.data.paths import image_file
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.image_set import ImageSet
from cmcgns.metrics.ranking import IntArray
from cmcgns.pretrained.embed import BATCH

Floats = npt.NDArray[np.float32]
Report = Callable[[float], None]

_VERSION = 1  # to be raised whenever pooling or preprocessing gives other features
_BLOCK = 4096  # images between two savings
_MAP_BATCH = 32
_SPARE = 1.1  # of the disk's free space that files may not take
_HIGHEST = float(np.finfo(np.float16).max)


def pooled_features(
    encoder: FrozenEncoder, images: ImageSet, cache: Path, progress: Report = lambda _: None
) -> Floats:
    """Features of every image, computed on first use and found again afterwards.

    The file's name depends on the encoder's weights and preprocessing, on the sizes, and on every image (its place,
    size and time of change), so that neither new weights nor a changed image meets old features. An interrupted
    computation goes on after its last block of 4,096 images. Several processes may ask for the same features at once:
    each uses the blocks that another has finished.

    Args:
        encoder: asked in eval mode; it does not change.
        images: its pixels may be memory-mapped; a batch at a time is read.
        cache: folder.
        progress: called with the share that is done.

    Returns:
        (n, C) float32 memory map.

    Raises:
        UserError: a feature that is not finite; names the image.
    """
    file = cache / f"features-{_key(encoder, images)}.npy"

    def block(start: int) -> Floats:
        rows = range(start, min(start + _BLOCK, len(images)))

        def fill(array: MappedArray, _: Sequence[int]) -> None:
            array[:] = _compute(encoder, images, rows, progress)

        return cached_array(file.with_suffix(f".{start}.npy"), (len(rows), encoder.width), np.float32, fill)

    def join(array: MappedArray, _: Sequence[int]) -> None:
        for start in range(0, len(images), _BLOCK):
            array[start : start + _BLOCK] = block(start)

    for start in range(0, len(images), _BLOCK):
        if file.is_file():  # also when another process has joined them meanwhile
            break
        progress(start / len(images))
        block(start)
    features: Floats = cached_array(file, (len(images), encoder.width), np.float32, join)
    for joined in cache.glob(f"{file.stem}.*.npy"):
        joined.unlink(missing_ok=True)
    return features


def _compute(encoder: FrozenEncoder, images: ImageSet, rows: range, progress: Report) -> Floats:
    if encoder.encoder.training:
        raise RuntimeError(f"{encoder.name}: not in eval mode")
    features = np.empty((len(rows), encoder.width), dtype=np.float32)
    for start in range(rows.start, rows.stop, BATCH):
        part = slice(start, min(start + BATCH, rows.stop))
        pooled = encoder.pooled(encoder.tensors(np.asarray(images.pixels[part])))
        if not torch.isfinite(pooled).all():
            row = start + int((~torch.isfinite(pooled).all(1)).nonzero()[0])
            raise UserError(f"{encoder.name}: features of {images.frame['image_path'].iloc[row]} are not finite")
        features[part.start - rows.start : part.stop - rows.start] = pooled.float().cpu().numpy()
        progress(part.stop / len(images))
    return features


def _made_by(encoder: FrozenEncoder) -> str:
    """Weights and preprocessing, and the kind of device: a GPU's convolutions round otherwise (TF32)."""
    kind = encoder.device.type
    return encoder.features_sha256 if kind == "cpu" else f"{encoder.features_sha256} {kind}"


def _key(encoder: FrozenEncoder, images: ImageSet) -> str:
    digest = hashlib.sha256(f"{_VERSION} {_made_by(encoder)} {images.pixels.shape}\n".encode())
    for image_path in images.frame["image_path"]:
        path = image_file(images.folder, image_path)
        digest.update((f"{path}\0" + "\0".join(map(str, file_stamp(path))) + "\n").encode())
    return digest.hexdigest()[:32]


class FrozenMaps:
    """Some of an encoder's maps for every image of a split.

    Where the disk has no room (or `limit` forbids it) they are computed anew for every batch.

    Args:
        encoder: gives the maps.
        pixels: (n, S, S) uint8 squares.
        size: side of the centre crop that the encoder sees.
        chosen: numbers of the maps.
        folder: for the files; shared by all that use the same encoder and images.
        limit: bytes that the files may take.
        progress: told how many images are done.
        block: images of a file: what an interruption may cost.

    Raises:
        UserError: the encoder gives values that are not finite.
    """

    def __init__(
        self,
        encoder: FrozenEncoder,
        pixels: Pixels,
        size: int,
        chosen: list[int],
        folder: Path,
        limit: float,
        progress: Callable[[str, float], None],
        block: int = 256,
    ) -> None:
        self.encoder, self.pixels, self.size, self.chosen, self.block = encoder, pixels, size, chosen, block
        example = self._compute(np.arange(1))
        self.shapes = [tuple(each.shape[1:]) for each in example]
        self.bytes = sum(2 * len(pixels) * int(np.prod(shape)) for shape in self.shapes)
        self._kind = np.dtype(
            [(str(number), np.float16, shape) for number, shape in zip(chosen, self.shapes, strict=True)]
        )
        levels = "-".join(map(str, chosen))
        base = folder / f"maps-{_map_key(encoder, pixels, size)}-{levels}"
        folder.mkdir(parents=True, exist_ok=True)
        starts = range(0, len(pixels), block)
        files = [base / f"{start}.npy" for start in starts]
        to_write = self.bytes * sum(not file.is_file() for file in files) / max(len(files), 1)
        self.kept = not to_write or (self.bytes <= limit and to_write <= free_bytes(folder) / _SPARE)
        blocks = zip(files, starts, strict=True) if self.kept else ()
        self._blocks = [self._block(file, start, progress) for file, start in blocks]

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, rows: IntArray) -> list[Tensor]:
        """Maps (B, C, h, w) float32 of some images, finest first, on the encoder's device."""
        if not self.kept:
            return self._compute(rows)
        device = self.encoder.device
        found = []
        for name, shape in zip(self._kind.names or (), self.shapes, strict=True):
            each = [self._blocks[row // self.block][name][row % self.block] for row in rows]
            stored = np.array(each, dtype=np.float16).reshape(len(rows), *shape)
            found.append(torch.from_numpy(stored).to(device).float())
        return found

    @torch.no_grad()
    def _compute(self, rows: IntArray) -> list[Tensor]:
        maps = self.encoder.maps(self.encoder.tensors(self.pixels[rows], self.size))
        found = [maps[number].float().clamp(-_HIGHEST, _HIGHEST) for number in self.chosen]
        if not all(bool(each.isfinite().all()) for each in found):
            raise UserError(f"{self.encoder.name}: its maps hold values that are not finite")
        return [each.half().float().contiguous() for each in found]  # rounded as the files are

    def _block(self, file: Path, start: int, progress: Callable[[str, float], None]) -> MappedArray:
        """The maps of some successive images; interrupted, a call goes on after the last whole block."""

        def fill(array: MappedArray, places: Sequence[int]) -> None:
            for first in range(0, len(places), _MAP_BATCH):
                part = slice(first, min(first + _MAP_BATCH, len(places)))
                rows = np.arange(start + part.start, start + part.stop)
                for name, values in zip(self._kind.names or (), self._compute(rows), strict=True):
                    array[name][part] = values.half().cpu().numpy()
                progress("maps of the encoder", (rows[-1] + 1) / len(self))

        return cached_array(file, (min(self.block, len(self) - start),), self._kind, fill)


def _map_key(encoder: FrozenEncoder, pixels: Pixels, size: int) -> str:
    """Equal ones mean equal maps."""
    digest = hashlib.sha256(f"{_made_by(encoder)} {pixels.shape} {size}".encode())
    for first in range(0, len(pixels), 1024):
        digest.update(pixels[first : first + 1024].tobytes())
    return digest.hexdigest()[:24]


def token_batches(
    encoder: FrozenEncoder, images: ImageSet, rows: IntArray, tell: Callable[[float], None]
) -> Iterator[tuple[IntArray, Tensor]]:
    """Some images (b,) at a time and their tokens (b, P, C), where the encoder is.

    Raises:
        UserError: a token that is not finite; names the image.
    """
    for start in range(0, len(rows), BATCH):
        tell(start / len(rows))
        batch = rows[start : start + BATCH]
        tokens = encoder.tokens(encoder.tensors(np.asarray(images.pixels[batch]))).float()
        finite = torch.isfinite(tokens).flatten(1).all(1).cpu().numpy()
        if not finite.all():
            raise UserError(f"{encoder.name}: tokens of {images.names[batch[~finite][0]]} are not finite")
        yield batch, tokens
