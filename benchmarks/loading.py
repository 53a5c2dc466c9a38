"""Speed of loading for training on one core: read, decode, crop, affine, intensity jitter, with tokens.

    python benchmarks/loading.py                                # random 256 px JPEGs in a temporary folder
    python benchmarks/loading.py --shards DIR --images 20000    # your own shards

Prints images per second of processor time (which other programs on the machine hardly change) and of the clock, for
images out of shards and out of the memory-mapped array of an ordinary table. Wanted: 700 images/s from shards with
everything on.
"""

import argparse
import io
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageFilter

from cmcgns.data.manifest import read_manifest, write_manifest
from cmcgns.data.pairs.dataset import PairDataset
from cmcgns.data.pairs.loader import make_loader
from cmcgns.data.reports.tokenizer import train_tokenizer
from cmcgns.data.reports.tokens import tokenize_reports
from cmcgns.data.shards.index import open_shards
from cmcgns.data.shards.stream import ShardImages, training_order
from cmcgns.data.shards.write import write_shards
from cmcgns.settings.config import DataSettings

SETTINGS = {
    "crop": {},
    "crop, jitter": {"intensity_jitter": 0.1},
    "crop, affine, jitter": {"intensity_jitter": 0.1, "affine": 0.05},
}


def write_images(folder: Path, count: int, side: int) -> Path:
    """A prepared folder of blurred noise with grain, about as hard to decode as radiographs (20 KB at 256 px)."""
    random = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    for number in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (16, 16), dtype=np.uint8)).resize((side, side))
        grain = random.normal(0, 6, (side, side))
        pixels = np.asarray(coarse.filter(ImageFilter.GaussianBlur(2))) * 0.8 + 20 + grain
        buffer = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=95)
        (folder / "images" / f"{number}.jpg").write_bytes(buffer.getvalue())
    names = [f"{number}" for number in range(count)]
    report = "The heart is of normal size. The lungs are clear. There is no pleural effusion. No acute fracture."
    frame = pd.DataFrame({
        "image_path": [f"images/{name}.jpg" for name in names], "study_id": names, "patient_id": names,
        "dataset": "noise", "view": "AP", "split": "train", "findings": report, "width": side, "height": side,
    })  # fmt: skip
    write_manifest(frame, folder / "manifest.parquet")
    return folder


def dataset(shards: Path, options: dict[str, float], held: bool) -> PairDataset:
    """The training rows of a folder of shards."""
    folder = open_shards(shards)
    if folder is None:
        raise SystemExit(f"{shards} has no shards.json")
    settings = DataSettings(**options)  # type: ignore[arg-type]
    frame = read_manifest(folder.manifest)
    texts = (frame["findings"] + " " + frame["impression"]).tolist()
    tokens = tokenize_reports(texts, train_tokenizer(set(texts), 200), settings.max_tokens, settings.max_sentences)
    members = frame["image_path"].str.rsplit("/").str[-1].to_numpy(dtype=object)
    images = ShardImages(folder, frame["shard"].to_numpy(dtype=object), members, settings.resize)
    rows = np.flatnonzero(frame["split"] == "train")
    stored = images.load(rows).pixels if held else images
    return PairDataset(stored, tokens, frame["study_id"].tolist(), rows, settings)


def measure(data: PairDataset, images: int, batch: int = 64) -> tuple[float, float]:
    """Images per second of processor time and of the clock, without the first batch."""
    loader = iter(make_loader(data, training_order(data, batch, 1)))
    next(loader)
    done, wall, cpu = 0, time.perf_counter(), time.process_time()
    for each in loader:
        done += len(each)
        if done >= images:
            break
    return done / (time.process_time() - cpu), done / (time.perf_counter() - wall)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path, help="folder of shards (default: random images)")
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--side", type=int, default=256, help="of the random images, pixels")
    parser.add_argument("--per-shard", type=int, default=1000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["CMCGNS_CACHE"] = f"{temporary}/cache"
        shards = options.shards or Path(temporary) / "shards"
        if options.shards is None:
            prepared = write_images(Path(temporary) / "prepared", options.images, options.side)
            write_shards(prepared, shards, options.per_shard)
            size = np.mean([file.stat().st_size for file in (prepared / "images").iterdir()])
            print(f"{options.images} JPEGs of {options.side} px, {size / 1000:.1f} kB each")
        print(f"{'images from':<14}{'settings':<24}{'per CPU second':>16}{'per second':>12}")
        for source, held in (("shards", False), ("array", True)):
            for name, settings in SETTINGS.items():
                cpu, wall = measure(dataset(shards, settings, held), options.images)
                print(f"{source:<14}{name:<24}{cpu:>16,.0f}{wall:>12,.0f}")


if __name__ == "__main__":
    main()
