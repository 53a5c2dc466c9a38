"""Rates of decoding, resizing and storing one radiograph after another, on one core.

    OMP_NUM_THREADS=1 python benchmarks/decoding.py

Files are made in a temporary folder: a smooth 12-bit picture with noise. Each line is what `cmcgns prepare` does to
the pixels of one image: read the file, decode, VOI, resize to a long side of 512, write a JPEG of quality 95 that has
reached the disk. The figures are medians over `--repeats` rounds, once in time of the processor (what a core can do)
and once in time of the clock, which includes waiting for the disk and for whatever else the machine does; run several
processes to fill that wait.

- dicom: uncompressed, 2048×2048, 12 bits in 16, with a window; `dicom, no window` finds its range by the content.
- jpeg 2000: the same, lossless; `decoder alone` is the bare codec on the same stream, without file, VOI and resize.
- jpg, png: 1024×1024 gray of 8 bits.

Expected on one core x86-64, processor time: dicom 50/s (to reach: 25), jpg 290/s (to reach: 250), png 70/s, jpeg 2000
2.5/s where its decoder alone reaches 2.7/s (the noise makes it slower than most radiographs).
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import get_decoder
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid

from cmcgns.common.files import write_bytes
from cmcgns.data.images.place import resize
from cmcgns.data.images.read import decode_image, encode_image

LONG_SIDE = 512


def radiograph(side: int, white: int) -> np.ndarray:
    """(side,side) uint16: a smooth picture with the noise of a detector."""
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.uniform(0, white, (32, 32)).astype(np.float32))
    smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))
    return (smooth + generator.normal(0, white / 500, smooth.shape)).clip(0, white).astype(np.uint16)


def write_dicom(path: Path, pixels: np.ndarray, window: bool = True, compress: bool = False) -> Path:
    """Write 12-bit pixels as a digital radiograph."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = DigitalXRayImageStorageForPresentation, generate_uid()
    dataset.set_pixel_data(pixels, "MONOCHROME1", 12)
    if window:
        dataset.WindowCenter, dataset.WindowWidth = 2048, 3500
    if compress:
        dataset.compress(JPEG2000Lossless)
    dataset.save_as(path, enforce_file_format=True)
    return path


def prepare(path: Path) -> None:
    """What `cmcgns prepare` does to one image."""
    decoded = decode_image(path, at_least=LONG_SIDE)
    content = encode_image(resize(decoded.pixels, LONG_SIDE))
    write_bytes(path.parent / "out" / f"{path.stem}.jpg", content, durable=False)


def bare_decoder(path: Path) -> Callable[[], object]:
    """Decode the compressed stream of a file that is in memory already."""
    dataset = pydicom.dcmread(path)
    decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
    plugin = "pylibjpeg" if "pylibjpeg" in decoder.available_plugins else ""
    return lambda: decoder.as_array(dataset, raw=True, decoding_plugin=plugin)


def report(name: str, repeats: int, call: Callable[[], object]) -> None:
    """Print the median rates of a call, after a warm-up."""
    call()
    clock, processor = [], []
    for _ in range(repeats):
        started = time.perf_counter(), time.process_time()
        call()
        clock.append(time.perf_counter() - started[0])
        processor.append(time.process_time() - started[1])
    rates = [1 / statistics.median(times) for times in (processor, clock)]
    print(f"{name:<28}{rates[0]:>10.1f}/s processor{rates[1]:>10.1f}/s clock")


def main() -> None:
    """Make the files and time each kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=40)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        large, small = radiograph(2048, 4095), radiograph(1024, 255).astype(np.uint8)
        windowed = write_dicom(folder / "a.dcm", large)
        report("dicom", repeats, lambda: prepare(windowed))
        unwindowed = write_dicom(folder / "b.dcm", large, window=False)
        report("dicom, no window", repeats, lambda: prepare(unwindowed))
        packed = write_dicom(folder / "c.dcm", large, compress=True)
        report("jpeg 2000", max(3, repeats // 8), lambda: prepare(packed))
        report("jpeg 2000, decoder alone", max(3, repeats // 8), bare_decoder(packed))
        for suffix, options in ((".jpg", {"quality": 95}), (".png", {})):
            path = folder / f"d{suffix}"
            Image.fromarray(small).save(path, **options)
            report(suffix[1:], repeats, lambda path=path: prepare(path))


if __name__ == "__main__":
    main()
