"""Pooled features of images, computed once and kept on disk.

They are kept as float32: half precision would save 0.8 GB of 1.6 for 190,000 images of 2,048 features, but overflows
above 65,504, and features that differ in the eleventh bit would tie, which a ranking metric notices.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from cmcgns.common.array_cache import MappedArray, cached_array
from cmcgns.common.errors import UserError
from cmcgns.common.files import file_stamp
from cmcgns.data.manifest import image_file
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.image_set import ImageSet

FloatArray = npt.NDArray[np.float32]
Report = Callable[[float], None]

_VERSION = 1  # to be raised whenever pooling or preprocessing gives other features
_BATCH = 64
_BLOCK = 4096  # images between two savings


def pooled_features(
    encoder: FrozenEncoder, images: ImageSet, cache: Path, progress: Report = lambda _: None
) -> FloatArray:
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

    def block(start: int) -> FloatArray:
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
    features: FloatArray = cached_array(file, (len(images), encoder.width), np.float32, join)
    for joined in cache.glob(f"{file.stem}.*.npy"):
        joined.unlink(missing_ok=True)
    return features


def _compute(encoder: FrozenEncoder, images: ImageSet, rows: range, progress: Report) -> FloatArray:
    if encoder.encoder.training:
        raise RuntimeError(f"{encoder.name}: not in eval mode")
    features = np.empty((len(rows), encoder.width), dtype=np.float32)
    for start in range(rows.start, rows.stop, _BATCH):
        part = slice(start, min(start + _BATCH, rows.stop))
        pooled = encoder.pooled(encoder.tensors(np.asarray(images.pixels[part])))
        if not torch.isfinite(pooled).all():
            row = start + int((~torch.isfinite(pooled).all(1)).nonzero()[0])
            raise UserError(f"{encoder.name}: features of {images.frame['image_path'].iloc[row]} are not finite")
        features[part.start - rows.start : part.stop - rows.start] = pooled.float().cpu().numpy()
        progress(part.stop / len(images))
    return features


def _key(encoder: FrozenEncoder, images: ImageSet) -> str:
    digest = hashlib.sha256(f"{_VERSION} {encoder.features_sha256} {images.pixels.shape}\n".encode())
    for image_path in images.frame["image_path"]:
        path = image_file(images.folder, image_path)
        digest.update((f"{path}\0" + "\0".join(map(str, file_stamp(path))) + "\n").encode())
    return digest.hexdigest()[:32]
