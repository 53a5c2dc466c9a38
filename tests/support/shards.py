"""A tiny prepared folder, and its images from files or shards behind the same data set."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from cmcgns.common.errors import UserError
from cmcgns.data.images.read import read_image
from cmcgns.data.manifest import read_manifest, write_manifest
from cmcgns.data.pairs.dataset import PairDataset
from cmcgns.data.paths import image_file
from cmcgns.data.reports.tokenizer import train_tokenizer
from cmcgns.data.reports.tokens import tokenize_reports
from cmcgns.data.shards.index import ShardFolder, open_shards
from cmcgns.data.shards.stream import ShardImages
from cmcgns.settings.config import DataSettings
from support.image_faults import encoded

STORED, SIZE = 24, 16


def write_prepared(folder: Path, splits: dict[str, int], shape: tuple[int, int] = (STORED, 20)) -> Path:
    """Noise images, every third a PNG; the splits alternate in the manifest."""
    rows = [(split, number) for split, count in splits.items() for number in range(count)]
    rows.sort(key=lambda row: row[1])
    random = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    paths = [f"images/{index}.x.{'png' if index % 3 == 0 else 'jpg'}" for index in range(len(rows))]
    for path in paths:
        Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(folder / path)
    height, width = shape
    frame = pd.DataFrame({
        "image_path": paths, "study_id": [f"d:s{index}" for index in range(len(rows))],
        "patient_id": [f"d:p{index}" for index in range(len(rows))], "dataset": "d", "view": "AP",
        "split": [split for split, _ in rows], "findings": [f"Größe {index}. Normal." for index in range(len(rows))],
        "width": width, "height": height, "label_Edema": [1 if index % 2 else None for index in range(len(rows))],
        "boxes": '[{"label": "x", "x": 1, "y": 2, "width": 3, "height": 4}]', "mask_path": "masks/m.png",
    })  # fmt: skip
    write_manifest(frame, folder / "manifest.parquet")
    return folder


def jpeg(value: int = 9) -> bytes:
    """A small picture."""
    return encoded(np.full((STORED, STORED), value, dtype=np.uint8), "JPEG")


def images_of(folder: str | Path, size: int = STORED) -> ShardImages:
    """All images of a folder of shards."""
    shards = open_shards(folder)
    assert shards is not None
    frame = read_manifest(shards.manifest)
    members = frame["image_path"].str.rsplit("/").str[-1].to_numpy(dtype=object)
    return ShardImages(shards, frame["shard"].to_numpy(dtype=object), members, size)


def array_of(prepared: Path, size: int = STORED) -> np.ndarray:
    """The same images from their files."""
    paths = read_manifest(prepared)["image_path"]
    return np.stack([read_image(Path(image_file(prepared, path)), size) for path in paths])


def pair_dataset(images, manifest: Path, split: str = "train", **settings) -> PairDataset:
    """The rows of a split; images from wherever."""
    frame = read_manifest(manifest)
    texts = frame["findings"].tolist()
    options = {"image_size": SIZE, "resize": STORED, "max_tokens": 16, "max_sentences": 3, "intensity_jitter": 0.2}
    tokens = tokenize_reports(texts, train_tokenizer(texts, 100), 16, 3)
    rows = np.flatnonzero(frame["split"] == split)
    return PairDataset(images, tokens, frame["study_id"].tolist(), rows, DataSettings(**(options | settings)))


def verify_shards(folder: ShardFolder) -> list[str]:
    """Read every shard and compare size, count and hash.

    Returns:
        What is wrong, one message a shard.
    """
    wrong = []
    for name in folder.shards:
        try:
            folder.read(name)
        except UserError as error:
            wrong.append(str(error))
    return wrong
