"""Mask codes against a slow loop, and mask files."""

import gzip
import json
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cmcgns.common.errors import UserError
from cmcgns.data.images.masks import (
    Mask,
    decode_rle,
    encode_rle,
    mask_from_source,
    parse_rle,
    resize_mask,
    save_mask,
)
from cmcgns.data.images.place import MAX_PIXELS


def slow_decode(code: str, height: int, width: int) -> Mask:
    """As the challenge describes it: walk down the columns, a pair at a time."""
    mask = np.zeros((height, width), dtype=bool)
    position = 0
    values = [int(word) for word in code.split()]
    for gap, length in zip(values[::2], values[1::2], strict=True):
        position += gap
        for pixel in range(position, position + length):
            mask[pixel % height, pixel // height] = True
        position += length
    return mask


def test_a_known_code_goes_down_the_columns_from_the_end_of_the_last_run() -> None:
    expected = np.array([[0, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 1]], dtype=bool)  # 4 rows, 3 columns
    assert np.array_equal(decode_rle(["1 2 1 2 5 1"], 4, 3), expected)
    assert encode_rle(expected) == "1 2 1 2 5 1"


@pytest.mark.parametrize("seed", range(40))
def test_decoding_agrees_with_a_slow_loop_and_encoding_gives_the_mask_back(seed: int) -> None:
    generator = np.random.default_rng(seed)
    height, width = generator.integers(1, 13, 2)
    mask = generator.random((height, width)) < generator.choice([0.05, 0.5, 0.95])
    code = encode_rle(mask)
    assert np.array_equal(decode_rle([code], height, width), mask)
    if mask.any():
        assert np.array_equal(slow_decode(code, height, width), mask)


def test_a_full_mask_and_runs_that_touch_survive() -> None:
    assert encode_rle(np.ones((2, 3), dtype=bool)) == "0 6"
    assert decode_rle(["0 6"], 2, 3).all()
    assert np.array_equal(decode_rle(["0 2 0 1"], 2, 3), slow_decode("0 3", 2, 3))


@pytest.mark.parametrize("code", ["-1", " -1", "", "  \t"])
def test_no_mask_is_an_empty_mask(code: str) -> None:
    assert not decode_rle([code], 5, 4).any()
    assert encode_rle(decode_rle([code], 5, 4)) == "-1"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("1 2 3", "3 values, an odd number"),
        ("7", "1 values, an odd number"),
        ("1 -2", "-2 in the run-length code is negative"),
        ("-1 3", "-1 in the run-length code is negative"),
        ("-1 -1", "negative"),
        ("1 two", "'two'"),
        ("1 2.5", "'2.5'"),
        ("1 +-2", "'\\+-2'"),
        ("nan", "'nan'"),
        ("1 99999999999999999999", "no whole number"),
        ("19 2", "past the last pixel of 4×5"),
        ("0 10 0 11", "past the last pixel"),
        ("9223372036854775807 9223372036854775807", "no whole number|past the last pixel"),
        ("400000000000000000 400000000000000000", "past the last pixel"),
    ],
)
def test_a_bad_code_is_refused_with_the_reason_and_the_place(code: str, words: str) -> None:
    with pytest.raises(UserError, match=rf"a\.csv, row 3: .*({words})"):
        parse_rle(code, 5, 4, "a.csv, row 3")


def test_the_union_holds_every_mask_of_an_image() -> None:
    union = decode_rle(["0 2", "1 2", "-1"], 2, 2)
    assert np.array_equal(union, decode_rle(["0 3"], 2, 2))
    assert decode_rle([], 3, 2).shape == (3, 2)
    assert not decode_rle([], 3, 2).any()


@pytest.mark.parametrize("size", [(0, 4), (4, -1), (10**6, 10**6)])
def test_impossible_sizes_are_refused_before_memory_is_asked_for(size: tuple[int, int]) -> None:
    for read in (lambda: decode_rle(["-1"], *size), lambda: decode_rle([], *size)):
        with pytest.raises(UserError, match="pixels"):
            read()


def test_the_masks_of_a_reader(tmp_path: Path) -> None:
    spec = {"rle": ["0 1", "2 1"], "width": 3, "height": 2}
    assert np.array_equal(mask_from_source(json.loads(json.dumps(spec)), tmp_path), decode_rle(["0 1 1 1"], 2, 3))
    assert not mask_from_source({"rle": [], "width": 3, "height": 2}, tmp_path).any()


@pytest.mark.parametrize(
    ("mode", "outside", "inside"),
    [
        ("1", 0, 1),
        ("L", 0, 1),
        ("L", 0, 255),
        ("P", 0, 3),
        ("I;16", 0, 900),
        ("RGB", (0, 0, 0), (0, 9, 0)),
        ("RGBA", (0, 0, 0, 255), (9, 0, 0, 255)),
        ("LA", (0, 255), (9, 255)),
    ],
)
def test_mask_files_of_every_kind(tmp_path: Path, mode: str, outside: Any, inside: Any) -> None:
    picture = Image.new(mode, (3, 2), outside)
    if mode == "P":
        picture.putpalette([0, 0, 0, 10, 10, 10, 20, 20, 20, 0, 0, 0])  # colour of the index must not count
    picture.putpixel((2, 1), inside)
    picture.save(tmp_path / "a.png")
    expected = np.zeros((2, 3), dtype=bool)
    expected[1, 2] = True
    assert np.array_equal(mask_from_source({"file": "a.png"}, tmp_path), expected)


def faulty_spec(folder: Path, fault: str) -> dict[str, Any]:
    (folder / "root").mkdir()
    save_mask(np.ones((4, 4), dtype=bool), folder / "outside.png")
    save_mask(np.ones((90, 90), dtype=bool), folder / "root" / "whole.png")
    (folder / "root" / "text.png").write_text("no image")
    (folder / "root" / "cut.png").write_bytes((folder / "root" / "whole.png").read_bytes()[:60])
    (folder / "root" / "link.png").symlink_to(folder / "outside.png")
    (folder / "root" / "folder.png").mkdir()
    if fault == "huge.png":
        Image.new("1", (MAX_PIXELS // 1000 + 1, 1000)).save(folder / "root" / fault)
    return {
        "rle without size": {"rle": ["0 1"]},
        "rle as text": {"rle": "0 1", "width": 2, "height": 2},
        "size as text": {"rle": [], "width": "2", "height": 2},
        "nothing": {},
        "code": {"rle": ["0 1 2"], "width": 2, "height": 2},
        "size": {"rle": [], "width": 2, "height": 0},
    }.get(fault, {"file": fault})


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("rle without size", "`width` and `height` are expected"),
        ("rle as text", "a list"),
        ("size as text", "`width` and `height` are expected"),
        ("nothing", "either `file`"),
        ("code", "odd number"),
        ("size", "pixels"),
        ("missing.png", "missing.png: no such file"),
        ("text.png", "text.png: not a PNG or JPEG file"),
        ("cut.png", "cut.png: truncated PNG"),
        ("folder.png", "folder.png: not a file"),
        ("huge.png", "huge.png.*pixels"),
        ("../outside.png", "leads out of"),
        ("link.png", "link.png: leads out of"),
        ("/etc/hostname", "leads out of"),
    ],
)
def test_a_bad_description_or_file_is_a_user_error(tmp_path: Path, fault: str, words: str) -> None:
    spec = faulty_spec(tmp_path, fault)
    with pytest.raises(UserError, match=words):
        mask_from_source(spec, tmp_path / "root")


def test_resizing_asks_for_half_of_the_area() -> None:
    mask = np.zeros((4, 6), dtype=bool)
    mask[:2, :3] = True  # whole, and half of the second
    mask[3, 5] = True  # a quarter of the last
    assert np.array_equal(resize_mask(mask, (2, 3)), [[True, True, False], [False, False, False]])
    assert np.array_equal(resize_mask(mask, (4, 6)), mask)
    assert np.array_equal(resize_mask(mask, (8, 12)), mask.repeat(2, axis=0).repeat(2, axis=1))


@pytest.mark.parametrize("size", [(512, 512), (300, 300), (224, 224), (90, 240)])
def test_resizing_agrees_with_the_shares_of_area_and_keeps_them(size: tuple[int, int]) -> None:
    rows, columns = np.mgrid[:600, :600]
    ellipse = ((rows - 280) / 200) ** 2 + ((columns - 310) / 90) ** 2 <= 1
    resized = resize_mask(ellipse, size)
    assert resized.mean() == pytest.approx(ellipse.mean(), rel=0.02)
    if size == (300, 300):
        shares = ellipse.reshape(300, 2, 300, 2).mean(axis=(1, 3))
        assert np.array_equal(resized, shares >= 0.5)


def slow_shares(mask: Mask, size: tuple[int, int]) -> list[list[Fraction]]:
    """How much of every new pixel is inside: overlaps with all old pixels in turn, in exact fractions."""

    def overlaps(old: int, new: int) -> list[list[tuple[int, Fraction]]]:
        parts = []
        for number in range(new):
            start, end = Fraction(number * old, new), Fraction((number + 1) * old, new)
            lengths = [(pixel, min(end, Fraction(pixel + 1)) - max(start, Fraction(pixel))) for pixel in range(old)]
            parts.append([(pixel, length) for pixel, length in lengths if length > 0])
        return parts

    rows, columns = overlaps(mask.shape[0], size[0]), overlaps(mask.shape[1], size[1])
    whole = Fraction(mask.shape[0], size[0]) * Fraction(mask.shape[1], size[1])
    return [
        [sum((h * w for y, h in row for x, w in column if mask[y, x]), Fraction()) / whole for column in columns]
        for row in rows
    ]


ODD_FACTORS = [
    ((96, 96), (64, 64)),
    ((100, 50), (64, 32)),
    ((50, 100), (32, 64)),
    ((17, 23), (5, 7)),
    ((7, 5), (3, 4)),
    ((3, 4), (7, 9)),  # enlarged
    ((9, 4), (6, 10)),  # narrower one way, wider the other
    ((1, 6), (4, 1)),
]


@pytest.mark.parametrize(("shape", "size"), ODD_FACTORS)
@pytest.mark.parametrize("block", [1, 3])
def test_resizing_agrees_with_exact_fractions_at_every_factor(
    shape: tuple[int, int], size: tuple[int, int], block: int
) -> None:
    generator = np.random.default_rng(shape[0] * block)
    coarse = generator.random((shape[0] // block + 1, shape[1] // block + 1)) < 0.5
    mask = coarse.repeat(block, axis=0).repeat(block, axis=1)[: shape[0], : shape[1]]
    expected = [[share >= Fraction(1, 2) for share in row] for row in slow_shares(mask, size)]
    assert np.array_equal(resize_mask(mask, size), expected)


@pytest.mark.parametrize(("shape", "size"), [((1024, 1024), (448, 448)), ((1024, 768), (448, 336))])
def test_resizing_agrees_with_smaller_squares_that_no_border_crosses(
    shape: tuple[int, int], size: tuple[int, int]
) -> None:
    """1024 -> 448 is 16 -> 7: with every pixel as 7 × 7 squares a new one is 16 × 16 of them."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    ellipse = ((rows - 500) / 313) ** 2 + ((columns - 340) / 187) ** 2 <= 1
    speckled = ellipse ^ (np.random.default_rng(0).random(shape) < 0.3)
    for mask in (ellipse, speckled):
        squares = mask.repeat(7, axis=0).repeat(7, axis=1).reshape(size[0], 16, size[1], 16)
        expected = 2 * squares.sum(axis=(1, 3), dtype=np.int64) >= 16 * 16
        assert np.array_equal(resize_mask(mask, size), expected)


def test_an_exact_half_is_inside_and_less_is_not() -> None:
    half = np.array([[1, 1, 1, 0, 0, 0]], dtype=bool)
    assert resize_mask(half, (1, 1)).all()
    assert not resize_mask(half[:, 1:], (1, 1)).any()
    assert np.array_equal(resize_mask(half, (1, 4)), [[True, True, False, False]])
    assert np.array_equal(resize_mask(np.array([[True, False]]), (1, 3)), [[True, True, False]])
    large = np.arange(3000 * 3001).reshape(3000, 3001) < 3000 * 3001 // 2
    assert resize_mask(large, (1, 1)).all()
    large[0, 0] = False
    assert not resize_mask(large, (1, 1)).any()


def test_a_saved_mask_is_8_bit_0_or_255_and_comes_back(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).random((7, 5)) < 0.5
    save_mask(mask, tmp_path / "masks" / "a.png")
    with Image.open(tmp_path / "masks" / "a.png") as image:
        assert (image.mode, image.size, image.format) == ("L", (5, 7), "PNG")
        assert set(np.unique(np.asarray(image))) == {0, 255}
    assert np.array_equal(mask_from_source({"file": "masks/a.png"}, tmp_path), mask)
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["a.png"]


@pytest.mark.real_data
@pytest.mark.skipif("CMCGNS_DEV_DATA" not in os.environ, reason="needs the development data")
def test_every_code_of_the_challenge_decodes_and_encodes_back() -> None:
    with gzip.open(Path(os.environ["CMCGNS_DEV_DATA"]) / "siim_train_rle.csv.gz") as file:
        codes = pd.read_csv(file, dtype=str, keep_default_na=False).iloc[:, 1].str.strip()
    codes = codes[codes != "-1"]
    assert len(codes) == 3576
    for code in codes:
        assert parse_rle(code, 1024, 1024)[:, 1].sum() > 0
    for code in codes[::50]:
        mask = decode_rle([code], 1024, 1024)
        assert np.array_equal(mask, slow_decode(code, 1024, 1024))
        assert encode_rle(mask) == code
