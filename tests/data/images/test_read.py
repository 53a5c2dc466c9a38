"""Whatever holds a radiograph becomes the same gray array, and is written as one."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cmcgns.data.images.read import decode_image, encode_image
from support.image_faults import PICTURE, encoded
from support.pictures import large_jpeg, save


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P"])
def test_gray_picture_comes_out_of_every_png_mode(mode: str, tmp_path: Path) -> None:
    decoded = decode_image(save(PICTURE, tmp_path / "picture.png", mode))
    np.testing.assert_array_equal(decoded.pixels, PICTURE)
    assert decoded.pixels.dtype == np.uint8


def test_two_level_png_is_black_and_white(tmp_path: Path) -> None:
    inside_half = np.array([[True, False, True]])
    assert decode_image(save(inside_half, tmp_path / "picture.png")).pixels.tolist() == [[255, 0, 255]]


def test_palette_with_transparency_does_not_warn(tmp_path: Path) -> None:
    path = save(PICTURE, tmp_path / "picture.png", "P", transparency=b"\x00\x80")
    np.testing.assert_array_equal(decode_image(path).pixels, PICTURE)


def stretched(values: np.ndarray, high: int) -> np.ndarray:
    """Least value black, greatest white, rounded half up in whole numbers alone."""
    least, greatest = int(values.min()), int(values.max())
    return ((values.astype(np.int64) - least) * 2 * high + (greatest - least)) // (2 * (greatest - least))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("form", ["PNG", "array", "TIFF by Pillow"])
def test_sixteen_bit_pictures_are_stretched_from_their_least_to_their_greatest_value(tmp_path, form, bits) -> None:
    values = (PICTURE.astype(np.uint16) << 4) + 3
    save(values, tmp_path / "picture.tif")
    picture = {
        "PNG": lambda: save(values, tmp_path / "picture.png"),
        "array": lambda: values,
        "TIFF by Pillow": lambda: Image.open(tmp_path / "picture.tif"),
    }[form]()
    decoded = decode_image(picture, bits=bits)
    np.testing.assert_array_equal(decoded.pixels, stretched(values, 2**bits - 1))
    assert decoded.pixels.dtype == np.dtype(f"uint{bits}")


def test_a_constant_sixteen_bit_picture_is_black(tmp_path: Path) -> None:
    assert not decode_image(save(np.full((8, 8), 700, np.uint16), tmp_path / "picture.png")).pixels.any()


def test_jpeg_gray_and_colour_agree(tmp_path: Path) -> None:
    gray = decode_image(save(PICTURE, tmp_path / "gray.jpg", quality=95)).pixels.astype(int)
    colour = decode_image(save(PICTURE, tmp_path / "colour.jpg", "RGB", quality=95)).pixels.astype(int)
    assert np.abs(gray - PICTURE).max() <= 3
    assert np.abs(colour - PICTURE).max() <= 3


@pytest.mark.parametrize("mode", [None, "RGB"])
@pytest.mark.parametrize(
    ("at_least", "width"), [(960, 960), (500, 960), (480, 480), (300, 480), (240, 240), (9999, 960)]
)
def test_jpeg_may_come_reduced_but_not_below_what_is_needed(tmp_path: Path, mode, at_least: int, width: int) -> None:
    path = large_jpeg(tmp_path / "picture.jpg", mode)
    full, decoded = decode_image(path), decode_image(path, at_least=at_least)
    assert decoded.pixels.shape == (width * 800 // 960, width)
    assert (decoded.width, decoded.height) == (960, 800)
    step = 960 // width
    means = full.pixels.reshape(800 // step, step, width, step).mean((1, 3))
    assert np.abs(decoded.pixels - means).max() <= 4


def test_only_jpeg_is_reduced(tmp_path: Path) -> None:
    path = save(PICTURE, tmp_path / "picture.png")
    assert decode_image(path, at_least=8).pixels.shape == PICTURE.shape


@pytest.mark.parametrize("at_least", [None, 480])
def test_exif_orientation_is_honoured(tmp_path: Path, at_least: int | None) -> None:
    straight = decode_image(large_jpeg(tmp_path / "a.jpg"), at_least).pixels
    turned = decode_image(large_jpeg(tmp_path / "b.jpg", orientation=6), at_least)  # turn clockwise to see it upright
    np.testing.assert_array_equal(turned.pixels, np.rot90(straight, -1))
    assert (turned.width, turned.height) == (800, 960)


def test_decoding_does_not_keep_the_file_open(tmp_path: Path) -> None:
    path = save(PICTURE, tmp_path / "picture.png")
    decoded = decode_image(path)
    path.write_bytes(b"")
    np.testing.assert_array_equal(decoded.pixels, np.asarray(Image.open(io.BytesIO(encoded(PICTURE)))))


def test_default_files_are_gray_8_bit_jpeg_of_quality_95(tmp_path: Path) -> None:
    (tmp_path / "picture.jpg").write_bytes(encode_image(PICTURE))
    with Image.open(tmp_path / "picture.jpg") as image:
        assert (image.format, image.mode) == ("JPEG", "L")
        assert image.quantization[0][0] == 2  # 16 in the standard's table, scaled to quality 95
        assert np.abs(np.asarray(image).astype(int) - PICTURE).max() <= 3


@pytest.mark.parametrize(("pixels", "mode"), [(PICTURE, "L"), (PICTURE.astype(np.uint16) * 250, "I;16")])
def test_lossless_files_are_png_of_the_same_depth(pixels: np.ndarray, mode: str, tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(encode_image(pixels, lossless=True))
    with Image.open(tmp_path / "picture.png") as image:
        assert (image.format, image.mode) == ("PNG", mode)
        np.testing.assert_array_equal(np.asarray(image), pixels)


def test_what_is_written_losslessly_is_not_stretched_again(tmp_path: Path) -> None:
    written = (PICTURE.astype(np.uint16) + 1) * 100  # a window may have left white and black unused
    (tmp_path / "picture.png").write_bytes(encode_image(written, lossless=True))
    np.testing.assert_array_equal(decode_image(tmp_path / "picture.png", bits=16).pixels, written)
    expected = (written.astype(np.int64) * 2 * 255 + 65535) // (2 * 65535)
    np.testing.assert_array_equal(decode_image(tmp_path / "picture.png").pixels, expected)
    with Image.open(tmp_path / "picture.png") as image:
        np.testing.assert_array_equal(decode_image(image).pixels, expected)
