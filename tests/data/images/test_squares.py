"""A picture becomes a square of the size that training asks for, as Pillow would make it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from cmcgns.data.images.files import image_size
from cmcgns.data.images.read import decode_image, read_image, read_with_size
from support.image_faults import FAULTS
from support.pictures import large_jpeg, save, smooth


def test_padding_is_black_and_centred(tmp_path):
    tall = read_image(save(np.full((40, 20), 255, np.uint8), tmp_path / "t.png"), 20)
    assert tall.shape == (20, 20)
    assert tall.dtype == np.uint8
    assert (tall[:, 5:15] == 255).all()
    assert not tall[:, :5].any()
    assert not tall[:, 15:].any()
    wide = read_image(save(np.full((20, 40), 255, np.uint8), tmp_path / "w.png"), 20)
    assert (wide == tall.T).all()


def test_same_size_is_not_resampled_and_a_sliver_survives(tmp_path):
    exact = smooth(32, 32)
    assert (read_image(save(exact, tmp_path / "a.png"), 32) == exact).all()
    assert read_image(save(np.full((500, 1), 9, np.uint8), tmp_path / "b.png"), 32).any()


def test_small_images_are_enlarged(tmp_path):
    assert (read_image(save(np.full((4, 4), 7, np.uint8), tmp_path / "a.png"), 32) == 7).all()


def test_png_and_jpeg_agree(tmp_path):
    source = smooth(480, 640)
    png = read_image(save(source, tmp_path / "a.png"), 64).astype(int)
    jpeg = read_image(save(source, tmp_path / "a.jpg", quality=95), 64).astype(int)
    assert np.abs(png - jpeg)[8:56].mean() < 2
    assert np.corrcoef(png.ravel(), jpeg.ravel())[0, 1] > 0.999


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_gray_content_in_any_mode_is_the_same(tmp_path, mode):
    gray = Image.fromarray(smooth())
    expected = read_image(save(gray, tmp_path / "gray.png"), 64)
    assert (read_image(save(gray.convert(mode), tmp_path / "a.png"), 64) == expected).all()


def test_a_square_of_a_palette_with_transparency(tmp_path):
    palette = Image.fromarray(smooth()).convert("P")
    save(palette, tmp_path / "a.png", transparency=bytes([0] * 10 + [255] * 246))
    assert (read_image(tmp_path / "a.png", 64)[8:56] == smooth()).all()


def test_one_bit_cmyk_and_colour(tmp_path):
    half = np.zeros((32, 32), bool)
    half[:, 16:] = True
    bits = read_image(save(Image.fromarray(half), tmp_path / "a.png"), 32)
    assert (bits == half * 255).all()
    cmyk = read_image(save(Image.fromarray(smooth()).convert("CMYK"), tmp_path / "c.jpg", quality=95), 64)
    assert np.abs(cmyk[8:56].astype(int) - smooth()).mean() < 2
    red = read_image(save(Image.new("RGB", (8, 8), (255, 0, 0)), tmp_path / "r.png"), 8)
    assert (red == 76).all(), "ITU-R 601 luma of pure red"


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_squares_are_upright(tmp_path, orientation, name):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = Image.fromarray(smooth(64, 64))
    save(turned, tmp_path / name, exif=exif)
    with Image.open(tmp_path / name) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert (read_image(tmp_path / name, 64) == expected).all()
    assert np.abs(expected.astype(int) - smooth(64, 64)).mean() > 10, "the example must not be symmetrical"


def by_pillow(path: Path, size: int) -> np.ndarray:
    """What a square of an 8-bit file is, step by step."""
    with Image.open(path) as image:
        image.draft("L", (size, size))
        gray = ImageOps.exif_transpose(image).convert("L")
    scale = size / max(gray.size)
    width, height = (max(1, round(side * scale)) for side in gray.size)
    gray = gray.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=3.0)
    square = Image.new("L", (size, size))
    square.paste(gray, ((size - width) // 2, (size - height) // 2))
    return np.asarray(square)


@pytest.mark.parametrize("mode", [None, "RGB"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("size", [64, 100, 300])
def test_squares_are_those_of_pillow_to_the_last_bit(tmp_path: Path, mode, orientation: int, size: int) -> None:
    path = large_jpeg(tmp_path / "picture.jpg", mode, orientation)
    np.testing.assert_array_equal(read_image(path, size), by_pillow(path, size))
    png = save(decode_image(path).pixels, tmp_path / "picture.png")
    np.testing.assert_array_equal(read_image(png, size), by_pillow(png, size))
    assert read_with_size(path, size)[1] == image_size(path) == ((800, 960) if orientation == 6 else (960, 800))


@pytest.mark.parametrize("kind", ["jpeg_named_png", "dicom_named_png", "constant", "dicom_colour"])
def test_a_square_is_that_of_the_decoded_picture(kind: str, tmp_path: Path) -> None:
    path = tmp_path / FAULTS[kind].file
    FAULTS[kind].write(path)
    decoded = decode_image(path)
    assert read_with_size(path, 30)[1] == (decoded.width, decoded.height)
    for other in (decoded.pixels, Image.fromarray(decoded.pixels), str(path)):
        np.testing.assert_array_equal(read_image(other, 30), read_image(path, 30))
