from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cmcgns.common.errors import UserError
from cmcgns.data.images.resize import check_size, resize, save_image, scale_factors, scale_values, scaled_size
from support.image_faults import BUSY, PICTURE


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1024, 1024), (512, 512)), ((2500, 2048), (512, 419)), ((2048, 2500), (419, 512)), ((4000, 1), (512, 1))],
)
def test_the_long_side_is_given_and_the_aspect_kept(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert scaled_size(*size, 512) == expected
    assert resize(np.zeros(size[::-1], np.uint8), 512).shape == expected[::-1]


def test_small_pictures_are_enlarged_on_demand_only() -> None:
    assert resize(PICTURE, 96) is PICTURE
    assert resize(PICTURE, 96, enlarge=True).shape == (80, 96)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_resizing_averages_what_it_covers(kind: type) -> None:
    """Triangle of twice the new pixel's width, computed for one pixel after another."""
    factor, pixels = 4, BUSY.astype(kind) * (1 if kind == np.uint8 else 257)
    found = resize(pixels, 20)
    offsets = np.arange(-factor // 2, factor + factor // 2)
    for row in range(1, 15):
        for column in range(1, 19):
            weights = 1 - np.abs(offsets + 0.5 - factor / 2) / factor
            weights = weights / weights.sum()
            window = pixels[np.ix_(row * factor + offsets, column * factor + offsets)].astype(float)
            assert abs(weights @ window @ weights - found[row, column]) <= 1
    assert found.dtype == kind


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_constant_pictures_stay_constant(kind: type) -> None:
    white = np.iinfo(kind).max
    assert (resize(np.full((300, 217), white, kind), 64) == white).all()


def test_scale_factors_are_exact_in_each_direction() -> None:
    small = resize(np.zeros((2048, 2500), np.uint8), 512)
    assert scale_factors(2500, 2048, small) == (512 / 2500, 419 / 2048)


def test_default_files_are_gray_8_bit_jpeg_of_quality_95(tmp_path: Path) -> None:
    save_image(PICTURE.astype(np.uint16) * 257, 65535, tmp_path / "deep" / "picture.jpg")
    with Image.open(tmp_path / "deep" / "picture.jpg") as image:
        assert (image.format, image.mode) == ("JPEG", "L")
        assert image.quantization[0][0] == 2  # 16 in the standard's table, scaled to quality 95
        assert np.abs(np.asarray(image).astype(int) - PICTURE).max() <= 3
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["picture.jpg"]


@pytest.mark.parametrize(("pixels", "mode"), [(PICTURE, "L"), (PICTURE.astype(np.uint16) * 250, "I;16")])
def test_lossless_files_are_png_of_the_same_depth(pixels: np.ndarray, mode: str, tmp_path: Path) -> None:
    save_image(pixels, int(np.iinfo(pixels.dtype).max), tmp_path / "picture.png", lossless=True)
    with Image.open(tmp_path / "picture.png") as image:
        assert (image.format, image.mode) == ("PNG", mode)
        np.testing.assert_array_equal(np.asarray(image), pixels)


def test_twelve_bit_values_are_spread_over_the_files_range(tmp_path: Path) -> None:
    save_image(np.array([[0, 1, 4095, 5000]], np.uint16), 4095, tmp_path / "picture.png", lossless=True)
    with Image.open(tmp_path / "picture.png") as image:
        assert np.asarray(image).tolist() == [[0, 16, 65535, 65535]]


def test_scaling_rounds_to_the_nearest() -> None:
    values = np.arange(65536, dtype=np.uint16)
    scaled = scale_values(values, 65535, 255)
    assert scaled.dtype == np.uint8
    assert np.abs(scaled - values / 257).max() <= 0.5


@pytest.mark.parametrize(
    ("size", "word"), [((0, 5), "no picture"), ((5, -1), "no picture"), ((10_000, 10_000), "bound")]
)
def test_impossible_sizes_are_refused(size: tuple[int, int], word: str) -> None:
    with pytest.raises(UserError, match=rf"picture\.png: .*{word}"):
        check_size(*size, Path("picture.png"))
