import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from cmcgns.data.images.near_duplicates import (
    DISTANCE,
    _within_distance,
    connected,
    near_duplicates,
    signature,
    thumbnail,
    without_padding,
)
from cmcgns.data.images.read import read_image
from cmcgns.phantom import make_study
from support.check import picture


def chest(index: int) -> Image.Image:
    return Image.fromarray(make_study(5, index, 256).image)


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def crop(image: Image.Image, share: float) -> Image.Image:
    width, height = image.size
    left, top = round(width * share), round(height * share)
    return image.crop((left, top, width - left, height - top))


def signatures(images: list[Image.Image]) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    both = [signature(np.asarray(image)) for image in images]
    return np.stack([hashes for hashes, _ in both]), np.stack([small for _, small in both])


@pytest.mark.parametrize(
    "copy",
    [
        lambda image: image,
        lambda image: jpeg(image, 30),
        lambda image: image.resize((130, 130)),
        lambda image: image.resize((400, 300), Image.Resampling.BICUBIC),
        lambda image: crop(image, 0.01),
        lambda image: crop(image, 0.02),
        lambda image: ImageEnhance.Brightness(image).enhance(1.1),
        lambda image: image.point(lambda value: round(255 * (value / 255) ** 0.85)),
        lambda image: jpeg(crop(ImageEnhance.Brightness(image).enhance(0.9), 0.01).resize((200, 200)), 60),
    ],
)
def test_copies_are_found_and_only_they(copy: Callable[[Image.Image], Image.Image]) -> None:
    originals = [chest(index) for index in range(0, 240, 24)]  # other patients every time
    pairs, correlations = near_duplicates(*signatures(originals), signatures([copy(image) for image in originals]))
    assert pairs.tolist() == [[number, number] for number in range(10)]
    assert (correlations >= 0.98).all()


def test_different_synthetic_patients_are_never_the_same_picture() -> None:
    studies = [make_study(7, index, 48) for index in range(300)]
    pairs, _ = near_duplicates(*signatures([Image.fromarray(study.image) for study in studies]))
    # The drawn anatomy is the patient's, so two studies of one patient may look the same.
    assert all(studies[one].patient_id == studies[other].patient_id for one, other in pairs.tolist())


def test_the_search_equals_comparing_all_pairs() -> None:
    generator = np.random.default_rng(0)
    hashes = generator.integers(0, 2**64, (300, 4), dtype=np.uint64)
    for row in range(0, 300, 3):  # neighbours at every distance from 0 to 16, spread over the words
        flips = np.zeros(256, dtype=np.uint8)
        flips[generator.choice(256, row % 17, replace=False)] = 1
        hashes[row + 1] = hashes[row] ^ np.packbits(flips).view(np.uint64)
    bits = np.unpackbits(hashes.view(np.uint8), axis=1).astype(int)
    distance = np.abs(bits[:, None] - bits[None]).sum(axis=2)
    expected = {(i, j) for i in range(300) for j in range(300) if distance[i, j] <= DISTANCE}
    across = np.concatenate(list(_within_distance(hashes, hashes, among=False)))
    assert set(map(tuple, across.tolist())) == expected
    among = np.concatenate(list(_within_distance(hashes, hashes, among=True)))
    assert set(map(tuple, among.tolist())) == {(i, j) for i, j in expected if i < j}
    assert len(among) == len(set(map(tuple, among.tolist())))


def differing_bits(one: NDArray[np.generic], other: NDArray[np.generic]) -> int:
    """Of the hashes of two whole pictures."""
    return int(np.bitwise_count(signature(one)[0][0] ^ signature(other)[0][0]).sum())


def test_a_hash_ignores_number_range_and_has_256_bits() -> None:
    pixels = picture(1)
    hashes, _ = signature(pixels)
    assert hashes.shape == (2, 4)
    assert hashes.dtype == np.uint64
    np.testing.assert_array_equal(hashes, signature(pixels.astype(np.float64) * 16 + 3)[0])
    assert differing_bits(pixels, picture(2)) > 40


def test_noise_in_black_margins_does_not_change_the_hash() -> None:
    pixels = np.zeros((200, 200), dtype=np.float32)
    pixels[60:140, 50:150] = picture(3, (80, 100)) + 20.0
    noise = np.random.default_rng(0).random(pixels.shape) * 3
    assert differing_bits(pixels, pixels + noise) <= 2


def test_constant_and_tiny_pictures_do_no_harm() -> None:
    assert thumbnail(np.full((40, 30), 9)).max() == 0
    flat = signatures([Image.new("L", (20, 30), 7), Image.new("L", (1, 1), 3), Image.new("L", (20, 30), 9)])
    assert near_duplicates(*flat)[0].shape == (0, 2)


def test_no_pictures_have_no_pairs() -> None:
    hashes, small = np.empty((0, 2, 4), np.uint64), np.empty((0, 2, 32, 32), np.uint8)
    pairs, correlations = near_duplicates(hashes, small)
    assert pairs.shape == (0, 2)
    assert correlations.shape == (0,)


def test_pairs_join_into_groups() -> None:
    pairs = np.array([[5, 6], [1, 2], [2, 5], [3, 7]])
    assert connected(9, pairs).tolist() == [0, 1, 1, 3, 4, 1, 1, 3, 8]
    assert connected(3, np.empty((0, 2), dtype=np.int64)).tolist() == [0, 1, 2]


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


@pytest.mark.slow
def test_thirty_thousand_pictures_take_seconds() -> None:
    import time

    generator = np.random.default_rng(0)
    hashes = generator.integers(0, 2**64, (30_000, 2, 4), dtype=np.uint64)
    small = np.zeros((30_000, 2, 32, 32), dtype=np.uint8)
    start = time.perf_counter()
    near_duplicates(hashes, small)
    assert time.perf_counter() - start < 40  # a hundred thousand: eleven times as long
