"""How many altered copies of radiographs are found, and how alike different ones look.

    python benchmarks/near_duplicates.py TABLE [--images N]

TABLE (csv) has `image_path`, counted from its folder, and `patient_id`. "search" is what `cmcgns check` and the
leakage guard do with all pairs; "proposed" is the comparison of pairs that an equal report proposes to `check`.
"""

import argparse
import io
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageOps

from cmcgns.data.images.near_duplicates import CORRELATION, best_correlation, near_duplicates, signature
from cmcgns.data.images.read import decode_image

Gray = NDArray[np.uint8]


def crop(share: float) -> Callable[[Gray], Gray]:
    """Take a share of every side off."""

    def cut(pixels: Gray) -> Gray:
        top, left = (round(side * share) for side in pixels.shape)
        return pixels[top : pixels.shape[0] - top, left : pixels.shape[1] - left]

    return cut


def turn(angle: float) -> Callable[[Gray], Gray]:
    """Turn about the centre, corners black."""
    return lambda pixels: np.asarray(Image.fromarray(pixels).rotate(angle, Image.Resampling.BICUBIC))


def jpeg(pixels: Gray) -> Gray:
    """Through a JPEG of quality 20."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=20)
    return np.asarray(Image.open(buffer))


CHANGES: dict[str, Callable[[Gray], Gray]] = {
    "JPEG of quality 20": jpeg,
    "half the size": lambda pixels: np.asarray(Image.fromarray(pixels).reduce(2)),
    "gamma 0.85": lambda pixels: np.rint(255 * (pixels / 255) ** 0.85).astype(np.uint8),
    "contrast 70 %": lambda pixels: np.rint(pixels * 0.7 + 38).astype(np.uint8),
    "1 % cropped off every side": crop(0.01),
    "2 %": crop(0.02),
    "3 %": crop(0.03),
    "5 %": crop(0.05),
    "10 %": crop(0.1),
    "mirrored": lambda pixels: pixels[:, ::-1],
    "turned by 90°": np.rot90,
    "turned by 1°": turn(1),
    "turned by 2°": turn(-2),
    "turned by 5°": turn(5),
    "mirrored and turned by 3°": lambda pixels: turn(3)(np.ascontiguousarray(pixels[:, ::-1])),
    "histogram equalised": lambda pixels: np.asarray(ImageOps.equalize(Image.fromarray(pixels))),
    "inverted": lambda pixels: 255 - pixels,
}


def signatures(pictures: list[Gray]) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """(n, 2, 4) hashes and (n, 2, 32, 32) thumbnails."""
    hashes, thumbnails = zip(*(signature(np.ascontiguousarray(each)) for each in pictures), strict=True)
    return np.stack(hashes), np.stack(thumbnails)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--images", type=int, default=200)
    arguments = parser.parse_args()
    table = pd.read_csv(arguments.table)
    pictures = [decode_image(arguments.table.parent / path).pixels.astype(np.uint8) for path in table["image_path"]]
    hashes, thumbnails = signatures(pictures)
    drawn = np.random.default_rng(0).permutation(len(pictures))[: arguments.images]
    print(f"{'change':<28}{'search':>8}{'proposed':>10}")
    for name, change in CHANGES.items():
        changed = signatures([change(pictures[row]) for row in drawn])
        pairs, _ = near_duplicates(hashes[drawn], thumbnails[drawn], changed)
        found = np.unique(pairs[pairs[:, 0] == pairs[:, 1], 0]).size / len(drawn)
        proposed = best_correlation(changed[1][:, 0], thumbnails[drawn, 0]) >= CORRELATION
        print(f"{name:<28}{found:>8.0%}{proposed.mean():>10.0%}", flush=True)
    rows = np.argsort(table["patient_id"].to_numpy(), kind="stable")
    people = table["patient_id"].to_numpy()
    follow_ups = np.array([pair for pair in pairwise(rows) if people[pair[0]] == people[pair[1]]])
    others = np.random.default_rng(1).integers(0, len(pictures), (3000, 2))
    others = others[people[others[:, 0]] != people[others[:, 1]]]
    for name, two in (("follow-ups", follow_ups), ("different patients", others)):
        alike = best_correlation(thumbnails[two[:, 0], 0], thumbnails[two[:, 1], 0])
        print(f"{name}: {len(two):,} pairs, highest {alike.max():.3f}, {np.mean(alike >= CORRELATION):.2%} found")


if __name__ == "__main__":
    main()
