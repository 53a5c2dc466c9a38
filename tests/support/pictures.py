"""Small pictures in files."""

from pathlib import Path

import numpy as np
from PIL import Image

from support.image_faults import PICTURE


def save(pixels: np.ndarray | Image.Image, path: Path, mode: str | None = None, **options) -> Path:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def smooth(height=48, width=64):
    y, x = np.mgrid[:height, :width]
    return (120 + 60 * np.sin(y / 9) + 50 * np.cos(x / 13)).astype(np.uint8)


def large_jpeg(path: Path, mode: str | None = None, orientation: int | None = None) -> Path:
    smooth = np.asarray(Image.fromarray(PICTURE).resize((960, 800), Image.Resampling.BICUBIC))
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    return save(smooth, path, mode, exif=exif)
