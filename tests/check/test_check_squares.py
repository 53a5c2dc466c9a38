"""The black bars around a picture in its square are taken off where its size is right."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cmcgns.data.images.place import without_padding
from cmcgns.data.images.read import read_image


@pytest.mark.parametrize(
    ("width", "height", "shape"),
    [
        (200, 100, (5, 10)),
        (0, 0, (10, 10)),
        (100, 200, (10, 10)),  # there is something beside such a picture
        (300, 30, (10, 10)),
    ],
)
def test_black_bars_are_taken_off_where_the_size_is_right(width: int, height: int, shape: tuple[int, int]) -> None:
    square = np.zeros((10, 10), dtype=np.uint8)
    square[2:7] = 9
    assert without_padding(square, width, height).shape == shape


@pytest.mark.parametrize(("width", "height"), [(50, 31), (31, 50), (47, 47), (100, 3)])
def test_the_size_places_the_picture_as_it_is_read(width: int, height: int, tmp_path: Path) -> None:
    Image.new("L", (width, height), 200).save(tmp_path / "a.png")
    inside = without_padding(read_image(tmp_path / "a.png", 24), width, height)
    assert inside.min() == 200
