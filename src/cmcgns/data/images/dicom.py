"""DICOM radiographs to gray arrays that look as a viewer shows them.

What happens to a stored value, in this order (DICOM PS3.3 C.7.6.3, C.11.1, C.11.2 and PS3.4 N.2):

1. Bits that are not in use are masked; signed values get their sign (BitsStored, HighBit, PixelRepresentation).
2. Modality LUT: the sequence, else rescale slope and intercept.
3. VOI: the first item of the VOI LUT sequence (a lookup table); else the first window centre and width
   by the VOI LUT function (LINEAR, LINEAR_EXACT, SIGMOID); else, and where the window is unusable, the rule of
   `cmcgns.data.images.brightness`: least to greatest value. Unsigned pictures of up to 8 bits without rescale or VOI
   stay as they are. The tag `voi` names which of these was applied.
4. MONOCHROME1 is inverted.

The steps act on a table of all possible stored values (`cmcgns.data.images.voi`); the pixels are looked up once.
"""

import importlib
import io
import mmap
import os
import tempfile
from collections.abc import Callable, Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cmcgns.common.errors import UserError, shortened
from cmcgns.common.packaged import packaged_yaml
from cmcgns.common.processes import end_with_parent
from cmcgns.data.images.brightness import quantise
from cmcgns.data.images.codestream import check_codestream, jpeg_precision
from cmcgns.data.images.place import Gray, check_size
from cmcgns.data.images.voi import gray_table

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.pixels.decoders.base import Decoder
    from pydicom.uid import UID

_TABLES: dict[str, Any] = packaged_yaml("cmcgns.data.images", "dicom.yaml")
KEPT_TAGS: list[str] = _TABLES["kept"]
IDENTIFYING_TAGS: list[str] = _TABLES["identifying"]
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_PIXELS = b"\xe0\x7f\x10\x00"  # the tag of PixelData in Little Endian, as compressed pixels have it
_WAY_OUT = "convert the file to Explicit VR Little Endian first"
# libjpeg says one of these, and hands out a picture all the same.
_DAMAGE = ("premature end", "bad Huffman", "Bogus", "Invalid")
_HARMLESS = "Invalid SOS parameters"  # some writers leave them 0; the picture is whole
_NAMELESS = {"", "ANONYMOUS", "ANONYMIZED", "ANONYMISED", "ANON", "NONE", "REMOVED", "UNKNOWN", "XXX"}


def read_dicom(content: bytes, path: Path, bits: int = 8) -> tuple[Gray, dict[str, str]]:
    """Decode a DICOM file of one gray or RGB frame.

    Args:
        content: the file.
        path: named in messages.
        bits: 8 or 16, of the result.

    Returns:
        (H,W) uint8 or uint16, and what the file says: `KEPT_TAGS` that are filled, `voi`, `transfer_syntax`, and
        `identifying`: names (never values) of filled identifying tags, comma-separated.

    Raises:
        UserError: pydicom or a decoder is missing, no pixels, several frames, too large, or unusable values.
        Exception: pydicom's own, for anything else that is wrong with the file.
    """
    dataset = parse_dicom(content, path)
    if "PixelData" not in dataset and _PIXELS in content:
        raise UserError(f"{path}: truncated file (it ends amid the compressed pixels)")
    _check_header(dataset, path)
    stored = _decode_frame(dataset, path)
    tags = _tags(dataset)
    if stored.ndim == 3:
        return _gray_of_colour(stored, bits), tags | {"voi": "none (colour)"}
    table, voi = gray_table(dataset, stored, path)
    return quantise(table, bits)[stored], tags | {"voi": voi}


def parse_dicom(content: bytes, path: Path, tags: Sequence[str] = ()) -> "Dataset":
    """The elements of a DICOM file that are asked for, by default all that are used here; pixels are not decoded.

    Raises:
        UserError: pydicom is missing, or the file is deflated.
        Exception: pydicom's own, for anything that is wrong with the file.
    """
    if _DEFLATED in content:  # pydicom would inflate it without a bound
        raise UserError(f"{path}: deflated transfer syntax; {_WAY_OUT}")
    try:
        import pydicom
    except ImportError as error:
        raise UserError(f"{path}: reading DICOM needs pydicom; pip install 'cmcgns[dicom]'") from error
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    wanted: list[Any] = [*(tags or [*KEPT_TAGS, *IDENTIFYING_TAGS, *_TABLES["pixels"]])]
    dataset = pydicom.dcmread(io.BytesIO(content), force=True, specific_tags=wanted)
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dataset


def _check_header(dataset: "Dataset", path: Path) -> None:
    if "PixelData" not in dataset or not dataset.PixelData:
        raise UserError(f"{path}: DICOM file without pixels (PixelData)")
    _find_decoder(dataset.file_meta.TransferSyntaxUID, path)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise UserError(f"{path}: {frames} frames; a radiograph has one (multi-frame files are not read)")
    for name in ("Rows", "Columns", "BitsAllocated", "BitsStored", "PhotometricInterpretation"):
        if dataset.get(name) in (None, ""):
            raise UserError(f"{path}: DICOM file without {name}")
    check_size(int(dataset.Columns), int(dataset.Rows), path)
    samples, allocated, stored = (
        int(dataset.get(name) or 1) for name in ("SamplesPerPixel", "BitsAllocated", "BitsStored")
    )
    if allocated not in (8, 16) or not 1 <= stored <= allocated or (samples == 3 and allocated != 8):
        raise UserError(f"{path}: {stored} of {allocated} bits with {samples} samples a pixel are not read")
    colour = str(dataset.PhotometricInterpretation).strip()
    if samples not in (1, 3) or (samples == 1) != colour.startswith("MONOCHROME"):
        raise UserError(f"{path}: PhotometricInterpretation {colour} with {samples} samples a pixel is not read")
    needed = int(dataset.Columns) * int(dataset.Rows) * allocated // 8 * (2 if colour.endswith("422") else samples)
    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated and len(dataset.PixelData) < needed:
        raise UserError(f"{path}: truncated pixels ({len(dataset.PixelData)} of {needed} bytes)")


def _decode_frame(dataset: "Dataset", path: Path) -> NDArray[Any]:
    """Stored values: (H,W) uint8 or uint16 with their bits as they stand, or (H,W,3) uint8 RGB."""
    from pydicom.encaps import get_frame
    from pydicom.uid import JPEGExtended12Bit, JPEGLossless

    syntax = dataset.file_meta.TransferSyntaxUID
    colour = int(dataset.get("SamplesPerPixel") or 1) == 3
    if syntax.is_encapsulated:
        frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
        check_codestream(frame, (int(dataset.Columns), int(dataset.Rows), 3 if colour else 1), path)
        if syntax == JPEGExtended12Bit and jpeg_precision(frame) > 8:
            # pydicom keeps GDCM from these, but GDCM has one decoder for all of JPEG.
            syntax = JPEGLossless
            dataset = _relabelled(dataset, syntax)
    decoder = _find_decoder(syntax, path)
    preferred = _TABLES["decoders"].get(syntax, "")
    plugin = preferred if preferred in decoder.available_plugins else ""
    options: dict[str, Any] = {"correct_unused_bits": False}  # the table does it, and knows of HighBit

    def decode() -> NDArray[Any]:
        return decoder.as_array(dataset, raw=not colour, decoding_plugin=plugin, **options)[0]

    by_gdcm = not plugin and "gdcm" in decoder.available_plugins
    values = _decode_with_gdcm(decode, dataset, path) if by_gdcm else decode()
    return values if colour else values.astype(f"u{values.dtype.itemsize}", copy=False)


def _find_decoder(syntax: "UID", path: Path) -> "Decoder":
    from pydicom.pixels.decoders.base import get_decoder

    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise UserError(f"{path}: transfer syntax {syntax.name} is not read; {_WAY_OUT}") from None
    if not decoder.is_available:
        raise UserError(f"{path}: no decoder for {syntax.name} is installed; pip install 'cmcgns[dicom]'")
    return decoder


def _relabelled(dataset: "Dataset", syntax: "UID") -> "Dataset":
    """The same dataset under another transfer syntax."""
    from pydicom.dataset import FileMetaDataset

    other = copy(dataset)
    other.file_meta = FileMetaDataset()
    other.file_meta.TransferSyntaxUID = syntax
    return other


def _decode_with_gdcm(decode: Callable[[], NDArray[Any]], dataset: "Dataset", path: Path) -> NDArray[Any]:
    """JPEG of 12 bit, JPEG Lossless and JPEG-LS, for which there is no other free decoder."""
    importlib.import_module("gdcm")  # once here, not in every child
    samples = int(dataset.get("SamplesPerPixel") or 1)
    shape = (int(dataset.Rows), int(dataset.Columns)) + ((samples,) if samples > 1 else ())
    return decode_apart(decode, shape, np.dtype(f"u{int(dataset.BitsAllocated) // 8}"), path)


def decode_apart(
    decode: Callable[[], NDArray[Any]], shape: tuple[int, ...], dtype: np.dtype[Any], path: Path
) -> NDArray[Any]:
    """What `decode` returns, of that shape and type, called in a forked process: a few milliseconds.

    Some libraries end the whole process at damaged input; so the caller survives whatever happens. The modules that
    `decode` needs should be imported already.

    Raises:
        UserError: the decoder failed, crashed, or complained of damage on its error output.
    """
    size = int(np.prod(shape)) * dtype.itemsize
    with tempfile.TemporaryFile() as messages, mmap.mmap(-1, size) as shared:
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            end_with_parent(parent)
            _decode_and_exit(decode, shared, messages.fileno())
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        messages.seek(0)
        said = " ".join(messages.read(2000).decode("utf-8", "replace").split())
        if status < 0:
            raise UserError(f"{path}: damaged pixels (the decoder crashed: {shortened(said)})")
        if status > 0 or any(word in said.replace(_HARMLESS, "") for word in _DAMAGE):
            raise UserError(f"{path}: damaged pixels ({shortened(said)})")
        return np.frombuffer(shared[:], dtype).reshape(shape)


def _decode_and_exit(decode: Callable[[], NDArray[Any]], shared: mmap.mmap, messages: int) -> None:
    """The child's whole life: no handler of the parent may run in it, so it ends by `_exit`."""
    code = 1
    try:
        os.dup2(messages, 2)
        values = np.ascontiguousarray(decode())
        if values.nbytes == len(shared):
            shared[:] = values.tobytes()
            code = 0
    except BaseException as error:
        os.write(2, str(error).encode())
    finally:
        os._exit(code)


def _gray_of_colour(rgb: NDArray[Any], bits: int) -> Gray:
    gray = np.asarray(Image.fromarray(rgb).convert("L"))
    return gray if bits == 8 else gray.astype(np.uint16) * np.uint16(257)


def _tags(dataset: "Dataset") -> dict[str, str]:
    kept = {name: str(dataset.get(name)).strip() for name in KEPT_TAGS if dataset.get(name) not in (None, "")}
    syntax = dataset.file_meta.TransferSyntaxUID.name
    return kept | {"identifying": ",".join(filled_identifiers(dataset)), "transfer_syntax": syntax}


def filled_identifiers(dataset: "Dataset") -> list[str]:
    """Names of the tags that identify a person and are filled, but with no pseudonym and no mark of what was removed.

    Args:
        dataset: with `IDENTIFYING_TAGS` and PatientID, as far as the file has them.
    """
    nameless = _NAMELESS | {str(dataset.get("PatientID") or "").strip().upper()}
    stated = {name: str(dataset.get(name) or "").strip("^ []'\"").upper() for name in IDENTIFYING_TAGS}
    return [name for name, text in stated.items() if text not in nameless and text.strip("^ _X")]
