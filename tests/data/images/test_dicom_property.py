"""Any sensible DICOM radiograph looks as pydicom's own pipeline shows it, in 8 bits."""

from typing import Any

import numpy as np
import pydicom
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from cmcgns.common.remote import NamedBytes
from cmcgns.data.images.files import silent_decoders
from cmcgns.data.images.read import decode_image
from support.image_faults import dicom, dicom_bytes

SHAPE = (40, 36)  # smaller ones JPEG 2000 does not take
quarters = st.integers(-4000, 20000).map(lambda number: number / 4)


ENCODERS = {RLELossless: "pydicom", JPEG2000Lossless: "pylibjpeg"}


@st.composite
def pictures(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """Stored values and the bits that they use."""
    allocated = draw(st.sampled_from([8, 16]))
    stored = draw(st.integers(4, allocated))
    signed = draw(st.booleans())
    low = -(2 ** (stored - 1)) if signed else 0
    ends = sorted(draw(st.tuples(*[st.integers(low, low + 2**stored - 1)] * 2)))
    drawn = np.random.default_rng(draw(st.integers(0, 999))).integers(ends[0], ends[1] + 1, SHAPE)
    return drawn.astype(f"{'i' if signed else 'u'}{allocated // 8}"), stored


@st.composite
def tags(draw: st.DrawFn, stored: int) -> dict[str, Any]:
    """Rescale, window or lookup table, padding, photometric interpretation, spacing."""
    found: dict[str, Any] = {"PhotometricInterpretation": draw(st.sampled_from(["MONOCHROME1", "MONOCHROME2"]))}
    found["PixelSpacing"], found["PixelAspectRatio"] = ["0.14", "0.28"], [1, 2]  # no matter of gray levels
    voi = draw(st.sampled_from(["none", "window", "windows", "lut"]))
    if draw(st.booleans()):
        slope = draw(st.sampled_from([1, 2, -1] if voi == "lut" else [1, 0.5, 2, -1, 0.125]))
        found |= {"RescaleSlope": slope, "RescaleIntercept": draw(st.integers(-2000, 2000))}
    if voi in ("window", "windows"):
        function = draw(st.sampled_from([None, "LINEAR", "LINEAR_EXACT", "SIGMOID"]))
        found |= {"VOILUTFunction": function} if function else {}
        pairs = [(draw(quarters), draw(st.integers(1, 9000))) for _ in range(1 if voi == "window" else 3)]
        found["WindowCenter"], found["WindowWidth"] = ([pair[end] for pair in pairs] for end in (0, 1))
    if voi == "lut":
        bits, count = draw(st.sampled_from([10, 12, 16])), draw(st.integers(2, 3000))
        entries = np.rint((2**bits - 1) * np.linspace(0, 1, count) ** draw(st.sampled_from([0.5, 1, 2])))
        item = Dataset()
        item.add_new("LUTDescriptor", "US", [count, draw(st.integers(0, 2**stored // 2)), bits])
        item.add_new("LUTData", "US", entries.astype(int).tolist())
        found["VOILUTSequence"] = [item]
    return found


def by_pydicom(content: NamedBytes, padding: tuple[int, int] | None) -> np.ndarray:
    """Gray levels from 0 to 255 as real numbers."""
    dataset = pydicom.dcmread(content)
    stored = dataset.pixel_array
    values = apply_modality_lut(stored, dataset).astype(float)
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    depth = dataset.BitsStored
    black = -(2 ** (depth - 1)) if dataset.PixelRepresentation else 0
    if "VOILUTSequence" in dataset:
        count, first, bits = dataset.VOILUTSequence[0].LUTDescriptor
        within = np.minimum(values, first + count - 1)  # larger ones overflow in pydicom
        shown = apply_voi_lut(within, dataset) / (2**bits - 1)
    elif "WindowWidth" in dataset:
        ends = [
            end * slope + intercept for end in (black, black + 2**depth - 1)
        ]  # what pydicom spreads a window over
        shown = (apply_voi_lut(apply_modality_lut(stored, dataset), dataset) - ends[0]) / (ends[1] - ends[0])
    elif depth <= 8 and not black and (slope, intercept) == (1, 0):
        shown = values / (2**depth - 1)
    else:
        counted = np.ones(SHAPE, bool) if padding is None else (stored < padding[0]) | (stored > padding[1])
        inside = values[counted] if counted.any() else values
        inverted = -1 if dataset.PhotometricInterpretation == "MONOCHROME1" else 1
        low, high = (inverted * inside).min(), (inverted * inside).max()
        return np.clip((inverted * values - low) / max(high - low, 1e-9), 0, 1) * 255
    return 255 * (1 - shown if dataset.PhotometricInterpretation == "MONOCHROME1" else shown)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_any_sensible_radiograph_looks_as_pydicom_shows_it(data: st.DataObject) -> None:
    stored, depth = data.draw(pictures())
    elements = data.draw(tags(depth))
    padding = None
    if data.draw(st.booleans()):
        padding = tuple(sorted(data.draw(st.tuples(*[st.sampled_from(stored.reshape(-1).tolist())] * 2))))
        kind = "SS" if stored.dtype.kind == "i" else "US"
    dataset = dicom(stored, depth, **elements)
    if padding is not None:
        dataset.add_new("PixelPaddingValue", kind, padding[0])
        dataset.add_new("PixelPaddingRangeLimit", kind, padding[1])
    plain = [None, ImplicitVRLittleEndian, ExplicitVRBigEndian]
    # pydicom cannot read what it compresses of 8 bits or fewer in 16.
    syntax = data.draw(st.sampled_from(plain + (list(ENCODERS) if depth > 8 or stored.itemsize == 1 else [])))
    if syntax in ENCODERS:
        dataset.compress(syntax, encoding_plugin=ENCODERS[syntax], generate_instance_uid=False)
    elif syntax is not None:
        dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = stored.byteswap().tobytes()
    content = dicom_bytes(dataset)
    with silent_decoders():
        expected = by_pydicom(NamedBytes(content, "a.dcm"), padding)
    decoded = decode_image(NamedBytes(content, "a.dcm"))
    assert np.abs(decoded.pixels - expected).max() <= 1


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 999), st.sampled_from([0, 1]), st.booleans())
def test_colour_in_any_order_becomes_the_gray_of_its_luma(seed: int, planar: int, compress: bool) -> None:
    rgb = np.random.default_rng(seed).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
    dataset = dicom(rgb)
    if planar:
        dataset.PlanarConfiguration = 1
        dataset.PixelData = rgb.transpose(2, 0, 1).tobytes()
    elif compress:
        dataset.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    decoded = decode_image(NamedBytes(dicom_bytes(dataset), "a.dcm")).pixels
    assert np.abs(decoded - rgb @ np.array([0.299, 0.587, 0.114])).max() <= 1
