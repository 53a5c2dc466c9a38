"""Scaling, padding and cropping of pictures, and boxes that stay on what they mark."""

from pathlib import Path

import numpy as np
import pytest

from cmcgns.common.errors import UserError
from cmcgns.data.images.place import (
    centre_crop,
    check_size,
    fit_in_square,
    have_one_shape,
    place_boxes,
    place_in_square,
    resize,
    scaled_size,
    without_padding,
)
from support.image_faults import BUSY, PICTURE


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1024, 1024), (512, 512)), ((2500, 2048), (512, 419)), ((2048, 2500), (419, 512)), ((4000, 1), (512, 1))],
)
def test_the_long_side_is_given_and_the_aspect_kept(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert scaled_size(*size, 512) == expected
    assert resize(np.zeros(size[::-1], np.uint8), 512).shape == expected[::-1]


def test_small_pictures_are_not_enlarged() -> None:
    assert resize(PICTURE, 96) is PICTURE


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


@pytest.mark.parametrize(
    ("size", "word"), [((0, 5), "no picture"), ((5, -1), "no picture"), ((10_000, 10_000), "bound")]
)
def test_impossible_sizes_are_refused(size: tuple[int, int], word: str) -> None:
    with pytest.raises(UserError, match=rf"picture\.png: .*{word}"):
        check_size(*size, Path("picture.png"))


@pytest.mark.parametrize(("width", "height"), [(48, 40), (40, 48), (48, 48), (500, 3), (1, 700)])
@pytest.mark.parametrize("size", [32, 33, 48, 64])
def test_a_picture_comes_out_of_its_square_as_it_went_in(width: int, height: int, size: int) -> None:
    picture = np.random.default_rng(0).integers(1, 256, (height, width), dtype=np.uint8)
    square = fit_in_square(picture, size)
    place = place_in_square(width, height, size)
    assert max(place.width, place.height) == size
    assert np.count_nonzero(square) == place.width * place.height, "what is not picture is black"
    np.testing.assert_array_equal(without_padding(square, width, height), square[place.inside])
    if max(width, height) == size:
        np.testing.assert_array_equal(square[place.inside], picture)


@pytest.mark.parametrize(("width", "height"), [(48, 40), (40, 48), (96, 96), (120, 30)])
@pytest.mark.parametrize("crop", [None, 40, 48])
def test_boxes_lie_where_the_pixels_do(width: int, height: int, crop: int | None) -> None:
    box = {"x": width // 4, "y": height // 3, "width": width // 2, "height": height // 3}
    picture = np.zeros((height, width), np.uint8)
    picture[box["y"] : box["y"] + box["height"], box["x"] : box["x"] + box["width"]] = 255
    seen = fit_in_square(picture, 48)[None] if crop is None else centre_crop(fit_in_square(picture, 48)[None], crop)
    rows, columns = np.nonzero(seen[0] > 127)
    (found,) = place_boxes([box], width, height, 48, crop)
    expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert np.abs(found - expected).max() <= 1
    assert place_boxes([], width, height, 48, crop).shape == (0, 4)


def test_a_mask_of_a_smaller_size_has_the_shape_but_for_rounding() -> None:
    assert have_one_shape((419, 512), (2048, 2500), 512)  # 2048 · 512 / 2500 = 419.4
    assert have_one_shape((2048, 2500), (2048, 2500), 2500)
    assert not have_one_shape((400, 512), (2048, 2500), 512)
    assert not have_one_shape((512, 419), (2048, 2500), 512)
