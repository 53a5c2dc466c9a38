import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    JPEG2000,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from cmcgns.common.errors import UserError
from cmcgns.data.images.read import Decoded, decode_image
from support.image_faults import BUSY, PICTURE, compressed, dicom, dicom_bytes, encoded

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)  # every 12-bit value once


def read(dataset: Dataset, tmp_path: Path, bits: int = 8) -> Decoded:
    path = tmp_path / "picture.dcm"
    path.write_bytes(dicom_bytes(dataset))
    return decode_image(path, bits=bits)


def slow_brightness(value: float, dataset: Dataset) -> float:
    """PS3.3 C.11.2.1.2 and C.11.2.1.3, case by case as printed there, from 0 to 1."""
    centre, width = (float(np.atleast_1d(dataset.get(name))[0]) for name in ("WindowCenter", "WindowWidth"))
    function = dataset.get("VOILUTFunction", "LINEAR")
    if function == "SIGMOID":
        return 1 / (1 + math.exp(-4 * (value - centre) / width))
    shift, reduced = (0.5, width - 1) if function == "LINEAR" else (0.0, width)
    if value <= centre - shift - reduced / 2:
        return 0
    if value > centre - shift + reduced / 2:
        return 1
    return (value - (centre - shift)) / reduced + 0.5


def slow_picture(stored: np.ndarray, dataset: Dataset, high: int) -> np.ndarray:
    """Rescale, window and inversion of one pixel after another."""
    result = np.zeros(stored.shape, dtype=np.int64)
    for place, value in np.ndenumerate(stored):
        modality = int(value) * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0))
        brightness = slow_brightness(modality, dataset)
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            brightness = 1 - brightness
        result[place] = round(brightness * high)
    return result


WINDOWS: dict[str, dict[str, Any]] = {
    "linear": {"WindowCenter": 2000, "WindowWidth": 1500},
    "full": {"WindowCenter": 2048, "WindowWidth": 4096},
    "width_one": {"WindowCenter": 2000, "WindowWidth": 1},
    "several": {"WindowCenter": [1000, 3000], "WindowWidth": [500, 100]},
    "fractions": {"WindowCenter": "1999.5", "WindowWidth": "1000.25"},
    "exact": {"WindowCenter": 2000, "WindowWidth": 1500, "VOILUTFunction": "LINEAR_EXACT"},
    "sigmoid": {"WindowCenter": 2000, "WindowWidth": 1500, "VOILUTFunction": "SIGMOID"},
    "steep_sigmoid": {"WindowCenter": 2000, "WindowWidth": 30, "VOILUTFunction": "SIGMOID"},
    "rescaled": {"WindowCenter": 0, "WindowWidth": 800, "RescaleSlope": "0.5", "RescaleIntercept": -1024},
    "falling": {"WindowCenter": 0, "WindowWidth": 4000, "RescaleSlope": -2, "RescaleIntercept": 4000},
    "inverted": {"WindowCenter": 2000, "WindowWidth": 1500, "PhotometricInterpretation": "MONOCHROME1"},
}


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", WINDOWS)
def test_windows_agree_with_the_printed_formulas(name: str, bits: int, tmp_path: Path) -> None:
    dataset = dicom(RAMP, 12, **WINDOWS[name])
    decoded = read(dataset, tmp_path, bits)
    expected = slow_picture(RAMP, dataset, 2**bits - 1)
    assert decoded.pixels.dtype == np.dtype(f"uint{bits}")
    assert np.abs(decoded.pixels.astype(np.int64) - expected).max() <= 1
    assert decoded.tags["voi"].startswith("window ")


def test_values_far_out_of_a_steep_sigmoid_do_not_overflow(tmp_path: Path) -> None:
    window = {"WindowCenter": 2000, "WindowWidth": "0.001", "VOILUTFunction": "SIGMOID"}
    pixels = read(dicom(RAMP, 12, **window), tmp_path).pixels.reshape(-1)
    assert (pixels[0], pixels[1999], pixels[2001], pixels[4095]) == (0, 0, 255, 255)


@pytest.mark.parametrize("bits_stored", [8, 10, 12, 14, 15, 16])
def test_windows_agree_with_pydicom_at_every_depth(bits_stored: int, tmp_path: Path) -> None:
    pixels = (RAMP.astype(np.uint32) * (2**bits_stored - 1) // 4095).astype(np.uint16)
    window = {"WindowCenter": 2 ** (bits_stored - 1) * 0.9, "WindowWidth": 2 ** (bits_stored - 1) * 1.3}
    dataset = dicom(pixels, bits_stored, **window)
    theirs = apply_voi_lut(apply_modality_lut(pixels, dataset), dataset) / (2**bits_stored - 1) * 255
    assert np.abs(read(dataset, tmp_path).pixels - theirs).max() <= 0.51


@pytest.mark.parametrize("signed", [np.int16, np.int8])
def test_signed_values(signed: type, tmp_path: Path) -> None:
    stored = np.arange(-128, 128).astype(signed).reshape(16, 16)
    dataset = dicom(stored, WindowCenter=0, WindowWidth=201)
    np.testing.assert_allclose(read(dataset, tmp_path).pixels, slow_picture(stored, dataset, 255), atol=1)


def test_unused_bits_are_masked_and_signs_extended(tmp_path: Path) -> None:
    stored = np.array([[-2048, -5], [7, 2047]])
    patterns = ((stored & 0x0FFF) | 0x5000).astype(np.uint16)  # an overlay in the upper bits
    dataset = dicom(patterns, 12, PixelRepresentation=1, WindowCenter=0, WindowWidth=4096)
    np.testing.assert_allclose(read(dataset, tmp_path).pixels, slow_picture(stored, dataset, 255), atol=1)


def test_high_bit_says_where_the_value_lies(tmp_path: Path) -> None:
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    expected = read(dicom(RAMP, 12, **window), tmp_path).pixels
    np.testing.assert_array_equal(read(dicom(RAMP << 4, 12, HighBit=15, **window), tmp_path).pixels, expected)


def lookup(values: list[int], first: int, bits: int, kind: str = "US") -> list[Dataset]:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(values), first, bits])
    data: Any = values
    if kind == "OW":
        data = np.asarray(values, dtype=np.uint16 if bits > 8 else np.uint8).tobytes()
    item.add_new("LUTData", kind, data)
    return [item]


@pytest.mark.parametrize("kind", ["US", "OW"])
@pytest.mark.parametrize("bits", [8, 12])
def test_voi_lookup_table_comes_before_the_window(kind: str, bits: int, tmp_path: Path) -> None:
    values = [round((2**bits - 1) * (k / 199) ** 2) for k in range(200)]
    dataset = dicom(RAMP, 12, VOILUTSequence=lookup(values, 1000, bits, kind), WindowCenter=5, WindowWidth=9)
    decoded = read(dataset, tmp_path)
    expected = [values[min(max(value - 1000, 0), 199)] * 255 / (2**bits - 1) for value in range(4096)]
    assert np.abs(decoded.pixels.reshape(-1) - np.array(expected)).max() <= 0.51
    assert decoded.tags["voi"] == "lut"


def test_voi_lookup_table_is_entered_with_rescaled_values(tmp_path: Path) -> None:
    values = list(range(0, 4000, 4))
    dataset = dicom(RAMP, 12, VOILUTSequence=lookup(values, -500, 12), RescaleSlope=1, RescaleIntercept=-1000)
    expected = [values[min(max(value - 1000 + 500, 0), 999)] * 255 / 4095 for value in range(4096)]
    assert np.abs(read(dataset, tmp_path).pixels.reshape(-1) - np.array(expected)).max() <= 0.51


def test_modality_lookup_table_comes_before_the_window(tmp_path: Path) -> None:
    values = list(range(4095, -1, -1))
    plain = dicom(RAMP[::-1, ::-1].copy(), 12, **WINDOWS["linear"])
    turned = dicom(RAMP, 12, ModalityLUTSequence=lookup(values, 0, 16), **WINDOWS["linear"])
    np.testing.assert_array_equal(read(turned, tmp_path).pixels, read(plain, tmp_path).pixels)


def test_without_voi_the_content_spans_black_to_white(tmp_path: Path) -> None:
    stored = RAMP[10:50] // 2 + 100
    decoded = read(dicom(stored, 12), tmp_path)
    low, high = int(stored.min()), int(stored.max())
    assert np.abs(decoded.pixels - (stored - low) * 255.0 / (high - low)).max() <= 0.51
    assert decoded.tags["voi"] == f"range {low}..{high}"


@pytest.mark.parametrize(
    "padding", [{"PixelPaddingValue": 4000}, {"PixelPaddingValue": 4000, "PixelPaddingRangeLimit": 3990}]
)
def test_padding_does_not_stretch_the_range(padding: dict[str, int], tmp_path: Path) -> None:
    stored = RAMP // 4
    bordered = np.pad(stored, 3, constant_values=4000)
    if "PixelPaddingRangeLimit" in padding:
        bordered[0] = 3990
    decoded = read(dicom(bordered, 12, **padding), tmp_path)
    np.testing.assert_array_equal(decoded.pixels[3:-3, 3:-3], read(dicom(stored, 12), tmp_path).pixels)
    assert decoded.tags["voi"] == "range 0..1023"
    assert (decoded.pixels[0] == 255).all()


def test_the_range_of_signed_values_without_voi(tmp_path: Path) -> None:
    stored = (RAMP // 4).astype(np.int16) - 300  # -300 … 723: the bits of the negative ones are the larger numbers
    decoded = read(dicom(stored, 12), tmp_path)
    assert decoded.tags["voi"] == "range -300..723"
    assert np.abs(decoded.pixels - (stored + 300.0) * 255 / 1023).max() <= 0.51


def test_the_range_of_a_falling_rescale_without_voi(tmp_path: Path) -> None:
    decoded = read(dicom(RAMP, 12, RescaleSlope=-1, RescaleIntercept=4095), tmp_path)
    assert decoded.tags["voi"] == "range 0..4095"
    assert (decoded.pixels[0, 0], decoded.pixels[-1, -1]) == (255, 0)


def test_a_picture_of_padding_alone_is_decoded(tmp_path: Path) -> None:
    constant = np.full((8, 8), 9, np.uint16)
    assert read(dicom(constant, 12, PixelPaddingValue=9), tmp_path).pixels.max() == 0


@pytest.mark.parametrize(
    "window",
    [
        {"WindowCenter": 100, "WindowWidth": 0},
        {"WindowCenter": 100, "WindowWidth": -5},
        {"WindowCenter": "", "WindowWidth": 10},
        {"WindowCenter": 100, "WindowWidth": 10, "VOILUTFunction": "CUBIC"},
    ],
)
def test_an_unusable_window_is_left_aside_and_said(window: dict[str, Any], tmp_path: Path) -> None:
    decoded = read(dicom(RAMP, 12, **window), tmp_path)
    np.testing.assert_array_equal(decoded.pixels, read(dicom(RAMP, 12), tmp_path).pixels)
    assert decoded.tags["voi"] == "range 0..4095, window unusable"


def test_a_window_that_is_no_number_is_left_aside(tmp_path: Path) -> None:
    content = dicom_bytes(dicom(RAMP, 12, WindowCenter=1234, WindowWidth=5678)).replace(b"5678", b"wide")
    (tmp_path / "picture.dcm").write_bytes(content)
    assert decode_image(tmp_path / "picture.dcm").tags["voi"].endswith("window unusable")


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_the_same_8_bit_picture_as_png_and_dicom(photometric: str, tmp_path: Path) -> None:
    inverted = photometric == "MONOCHROME1"
    Image.fromarray(PICTURE).save(tmp_path / "picture.png")
    decoded = read(dicom(255 - PICTURE if inverted else PICTURE, PhotometricInterpretation=photometric), tmp_path)
    np.testing.assert_array_equal(decoded.pixels, decode_image(tmp_path / "picture.png").pixels)


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("bits_stored", [12, 16])
def test_a_full_window_shows_what_a_png_of_the_full_range_shows(bits_stored, inverted, tmp_path: Path) -> None:
    white = 2**bits_stored - 1
    stored = (RAMP.astype(np.uint32) * white // 4095).astype(np.uint16)
    Image.fromarray(stored).save(tmp_path / "picture.png")
    window = {"WindowCenter": (white + 1) / 2, "WindowWidth": white + 1}
    if inverted:
        window["PhotometricInterpretation"] = "MONOCHROME1"
    dataset = dicom(white - stored if inverted else stored, bits_stored, **window)
    for bits in (8, 16):
        png = decode_image(tmp_path / "picture.png", bits=bits).pixels
        np.testing.assert_array_equal(read(dataset, tmp_path, bits).pixels, png)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    "elements",
    [
        {},
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"WindowCenter": 100, "WindowWidth": 0},
        {"RescaleSlope": "0.25", "RescaleIntercept": "-1024"},
    ],
)
@pytest.mark.parametrize("greatest", [510, 700, 3771])  # 510: half of the values lie between two gray levels
def test_the_same_pixels_without_a_window_as_png_tiff_array_and_dicom(elements, bits, greatest, tmp_path) -> None:
    shown = (RAMP % (greatest + 1)).astype(np.uint16) + 200
    stored = 4095 - shown if "PhotometricInterpretation" in elements else shown
    decoded = read(dicom(stored, 12, **elements), tmp_path, bits)
    for name in ("picture.png", "picture.tif"):
        Image.fromarray(shown).save(tmp_path / name)
    for other in (tmp_path / "picture.png", Image.open(tmp_path / "picture.tif"), shown):
        np.testing.assert_array_equal(decode_image(other, bits=bits).pixels, decoded.pixels)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_uncompressed_transfer_syntaxes_agree(syntax: str, tmp_path: Path) -> None:
    expected = read(dicom(RAMP, 12, **WINDOWS["linear"]), tmp_path).pixels
    dataset = dicom(RAMP, 12, **WINDOWS["linear"])
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = RAMP.byteswap().tobytes()
    np.testing.assert_array_equal(read(dataset, tmp_path).pixels, expected)


def test_lookup_tables_of_big_endian_files(tmp_path: Path) -> None:
    item = lookup(list(range(4096)), 0, 12, "OW")
    expected = read(dicom(RAMP, 12, VOILUTSequence=item), tmp_path).pixels
    item[0].LUTData = np.arange(4096, dtype=">u2").tobytes()
    dataset = dicom(RAMP.byteswap(), 12, VOILUTSequence=item)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    np.testing.assert_array_equal(read(dataset, tmp_path).pixels, expected)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_lossless_transfer_syntaxes_agree(syntax: str, signed: bool, tmp_path: Path) -> None:
    stored = RAMP.astype(np.int16) - 2048 if signed else RAMP
    window = {"WindowCenter": 0 if signed else 2048, "WindowWidth": 3000}
    expected = read(dicom(stored, 12, **window), tmp_path).pixels
    dataset = dicom(stored, 12, **window)
    dataset.compress(syntax, generate_instance_uid=False)
    decoded = read(dataset, tmp_path)
    np.testing.assert_array_equal(decoded.pixels, expected)
    assert decoded.tags["transfer_syntax"] == syntax.name


def test_lossy_transfer_syntaxes_are_close(tmp_path: Path) -> None:
    path = tmp_path / "picture.dcm"
    path.write_bytes(compressed(dicom(), JPEGBaseline8Bit, encoded(PICTURE, "JPEG", quality=95)))
    assert np.abs(decode_image(path).pixels.astype(int) - PICTURE).max() <= 3
    dataset = dicom(np.asarray(Image.fromarray(PICTURE).resize((192, 160))), WindowCenter=128, WindowWidth=256)
    expected = read(dataset, tmp_path).pixels.astype(int)
    dataset.compress(JPEG2000, j2k_cr=[8], generate_instance_uid=False)
    assert np.abs(read(dataset, tmp_path).pixels - expected).max() <= 8


@pytest.mark.parametrize(
    ("native", "packed", "tolerance"),
    [
        ("RG1_UNCI.dcm", "RG1_J2KR.dcm", 3),
        ("RG1_UNCI.dcm", "RG1_J2KI.dcm", 3),
        ("MR_small.dcm", "MR_small_jpeg_ls_lossless.dcm", 0),
    ],
)
def test_published_files_agree_with_their_compressed_forms(native: str, packed: str, tolerance: int) -> None:
    files = [get_testdata_file(name, download=False) for name in (native, packed)]
    if None in files:
        pytest.skip("pydicom-data is not installed")
    first, second = (decode_image(Path(file)) for file in files)
    assert np.abs(first.pixels.astype(int) - second.pixels).max() <= tolerance


def test_a_real_inverted_15_bit_radiograph() -> None:
    file = get_testdata_file("RG1_UNCI.dcm", download=False)
    if file is None:
        pytest.skip("pydicom-data is not installed")
    decoded = decode_image(Path(file))
    assert (decoded.width, decoded.height) == (1841, 1955)
    assert decoded.tags["voi"] == "window 15000/30000"
    import pydicom

    dataset = pydicom.dcmread(file)
    assert dataset.PhotometricInterpretation == "MONOCHROME1"
    expected = 255 - apply_voi_lut(dataset.pixel_array, dataset) * (255 / 32767)
    assert np.abs(decoded.pixels - expected).max() <= 0.51


def test_lossless_jpeg_is_read() -> None:
    file = get_testdata_file("JPGLosslessP14SV1_1s_1f_8b.dcm", download=False)
    if file is None:
        pytest.skip("pydicom-data is not installed")
    assert decode_image(Path(file)).pixels.shape == (768, 1024)


@pytest.mark.parametrize("bits", [8, 16])
def test_colour_becomes_gray(bits: int, tmp_path: Path) -> None:
    rgb = np.stack([PICTURE, PICTURE[::-1], PICTURE[:, ::-1]], -1)
    decoded = read(dicom(rgb), tmp_path, bits)
    step = (2**bits - 1) / 255
    expected = rgb @ np.array([0.299, 0.587, 0.114]) * step
    assert decoded.pixels.dtype == np.dtype(f"uint{bits}")
    assert np.abs(decoded.pixels - expected).max() <= step


def test_tags_are_kept_and_identifying_ones_are_named_only(tmp_path: Path) -> None:
    kept = {"ViewPosition": "PA", "ImageLaterality": "L", "PatientSex": "F", "PatientAge": "061Y"}
    dataset = dicom(
        PatientName="Doe^Jane", PatientBirthDate="19500102", InstitutionName="", OperatorsName="^",
        ReferringPhysicianName="Roe^Richard", OtherPatientNames=["Jane", "Joan"], PatientID="p7",
        StudyInstanceUID="1.2.3", **kept,
    )  # fmt: skip
    tags = read(dataset, tmp_path).tags
    assert tags.keys() - kept.keys() == {"format", "voi", "transfer_syntax", "identifying"}
    assert tags | kept == tags
    assert tags["identifying"] == "PatientName,PatientBirthDate,OtherPatientNames,ReferringPhysicianName"
    assert not any(word in str(tags) for word in ("Doe", "1950", "Roe", "Joan", "p7"))


@pytest.mark.parametrize("name", ["p7", "ANONYMOUS", "", "^^^^"])
def test_pseudonyms_do_not_identify(name: str, tmp_path: Path) -> None:
    assert read(dicom(PatientID="p7", PatientName=name), tmp_path).tags["identifying"] == ""


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UserError, match=r"picture\.dcm: reading DICOM needs pydicom; pip install 'cmcgns\[dicom\]'"):
        read(dicom(), tmp_path)


def test_a_missing_decoder_is_named(tmp_path: Path, monkeypatch) -> None:
    from pydicom.pixels.decoders import JPEG2000LosslessDecoder

    dataset = dicom(BUSY)
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    monkeypatch.setattr(JPEG2000LosslessDecoder, "_available", {})
    with pytest.raises(UserError, match=r"no decoder for JPEG 2000 .* pip install 'cmcgns\[dicom\]'"):
        read(dataset, tmp_path)
