"""Files with something wrong in them."""

import io
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image


def picture(kind: str = "PNG", width: int = 40, height: int = 30, value: int = 99) -> bytes:
    """A picture's file content."""
    buffer = io.BytesIO()
    Image.new("L", (width, height), value).save(buffer, kind)
    return buffer.getvalue()


def table(*rows: str) -> str:
    """Lines of a csv file."""
    return "".join(f"{row}\n" for row in rows)


PAIRS = "image_path,patient_id,report"
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n"
PICKLE = pickle.dumps({"weight": print})
LAUGHS = "a: &a [x, x, x, x]\n" + "".join(
    f"{here}: &{here} [*{above}, *{above}, *{above}, *{above}, *{above}, *{above}, *{above}, *{above}]\n"
    for above, here in zip("abcdefghijk", "bcdefghijkl", strict=True)
)
DEEP = "data: " + "[" * 3000
PYTHON = "training: !!python/object/apply:os.system ['true']\n"


def folder(path: Path) -> None:
    """A folder, also in place of a file."""
    path.unlink(missing_ok=True)
    path.mkdir(parents=True)


def copy(of: str) -> Callable[[Path], object]:
    """A copy of a part of the world that lies beside."""
    return lambda path: shutil.copytree(path.parent / of, path)


def link(target: str) -> Callable[[Path], None]:
    """A symbolic link."""

    def make(path: Path) -> None:
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    return make


def cut(length: int) -> Callable[[Path], object]:
    """The file without its end."""
    return lambda path: path.write_bytes(path.read_bytes()[:length])


def replaced(old: str, new: str) -> Callable[[Path], object]:
    """A text file with other words in it."""
    return lambda path: path.write_text(path.read_text("utf-8").replace(old, new), "utf-8")


def setting(**values: Any) -> Callable[[Path], object]:
    """A JSON file with other values; None takes the key away."""

    def change(path: Path) -> None:
        content = json.loads(path.read_text("utf-8")) | values
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}), "utf-8")

    return change


def column(name: str, values: Any) -> Callable[[Path], object]:
    """A parquet file with another column; a list of values begins at the first row, None takes the column away."""

    def change(path: Path) -> None:
        frame = pd.read_parquet(path)
        if values is None:
            frame = frame.drop(columns=name)
        elif isinstance(values, list):
            rest = frame[name].tolist()[len(values) :]
            frame[name] = values + ([str(each) for each in rest] if isinstance(values[0], str) else rest)
        else:
            frame[name] = values
        frame.to_parquet(path)

    return change


def reportless(path: Path) -> None:
    """A manifest without a single report."""
    frame = pd.read_parquet(path)
    frame.assign(findings="", impression="", report="").to_parquet(path)


def parquet(**columns: Any) -> Callable[[Path], object]:
    """A new parquet file."""

    def write(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(columns).to_parquet(path)

    return write


def arrays(**content: Any) -> Callable[[Path], object]:
    """A file of numpy arrays."""
    return lambda path: np.savez(path, **content)


def every_image(content: bytes | None) -> Callable[[Path], None]:
    """All pictures below a folder replaced or removed."""

    def change(path: Path) -> None:
        for file in sorted(path.rglob("*.png")):
            if content is None:
                file.unlink()
            else:
                file.write_bytes(content)

    return change


def dicom(pixels: bool = False, end: int | None = None) -> Callable[[Path], object]:
    """A DICOM file, without pixels or cut off."""

    def write(path: Path) -> None:
        import pydicom
        from pydicom.dataset import FileMetaDataset
        from pydicom.uid import ExplicitVRLittleEndian

        dataset = pydicom.Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
        if pixels:
            dataset.Rows = dataset.Columns = 40
            dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
            dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
            dataset.PhotometricInterpretation = "MONOCHROME2"
            dataset.PixelData = bytes(3200)
        buffer = io.BytesIO()
        pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
        path.write_bytes(buffer.getvalue()[:end])

    return write
