import numpy as np
import pytest
from PIL import Image, ImageDraw

from cmcgns.check.image_facts import TEXT_ROWS, count_text_rows
from cmcgns.phantom import make_study
from support.check import picture


def chest(index: int, size: int = 512) -> Image.Image:
    pixels = make_study(3, index, 256).image
    return Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)


def text_rows(image: Image.Image) -> int:
    return count_text_rows(np.asarray(image, dtype=np.float32))


@pytest.mark.parametrize("text", ["SMITH JOHN 1958", "PORTABLE", "12.03.2019 14:22"])
@pytest.mark.parametrize("place", [(10, 8), (380, 20), (370, 8)])
@pytest.mark.parametrize("size", [12, 20])
def test_lines_of_letters_are_seen(text: str, place: tuple[int, int], size: int) -> None:
    image = chest(0)
    ImageDraw.Draw(image).text(place, text, fill=255, font_size=size)
    assert text_rows(image) >= TEXT_ROWS


def test_chests_without_text_and_with_a_side_marker_are_not_taken_for_text() -> None:
    for index in range(12):
        image = chest(index)
        assert text_rows(image) < TEXT_ROWS
        ImageDraw.Draw(image).text((30, 30), "L", fill=255, font_size=36)
        assert text_rows(image) < TEXT_ROWS


@pytest.mark.parametrize(
    "pixels", [np.zeros((50, 60)), np.zeros((1, 1)), np.full((3, 900), 7), picture(1), np.eye(300) * 4095]
)
def test_odd_pictures_have_no_text(pixels: np.ndarray) -> None:
    assert count_text_rows(pixels.astype(np.float32)) == 0


def test_the_number_range_does_not_matter() -> None:
    image = chest(1)
    ImageDraw.Draw(image).text((12, 480), "PORTABLE ERECT", fill=255, font_size=16)
    pixels = np.asarray(image, dtype=np.float32)
    assert count_text_rows(pixels * 257 + 100) == count_text_rows(pixels) >= TEXT_ROWS
