import io
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cmcgns.common.errors import UserError
from cmcgns.data.images import decode
from cmcgns.data.images.decode import decode_image, inside
from support.image_faults import FAULTS, PICTURE, Fault, encoded


@pytest.mark.parametrize("name", FAULTS)
def test_malformed_files_give_a_message_that_names_file_and_rule(name: str, tmp_path: Path, capfd) -> None:
    fault: Fault = FAULTS[name]
    path = tmp_path / fault.file
    fault.write(path)
    if fault.word is None:
        decoded = decode_image(path)
        assert decoded.pixels.ndim == 2
        assert decoded.pixels.shape == (decoded.height, decoded.width)
    else:
        with pytest.raises(UserError) as caught:
            decode_image(path)
        where, rule = str(caught.value).split(fault.file, 1)
        assert where == f"{tmp_path}{os.sep}"
        assert fault.word in rule
        assert "\n" not in rule
    assert capfd.readouterr() == ("", "")


def test_corpus_is_large_and_its_names_are_unique() -> None:
    assert sum(fault.word is not None for fault in FAULTS.values()) >= 40
    assert len({fault.file for fault in FAULTS.values()}) == len(FAULTS)


@pytest.mark.parametrize("kind", ["png", "jpeg", "dicom"])
def test_no_damaged_file_raises_anything_but_a_user_error(kind: str, tmp_path: Path) -> None:
    source = {"png": "constant", "jpeg": "jpeg_named_png", "dicom": "dicom_named_png"}[kind]
    path = tmp_path / "picture"
    FAULTS[source].write(path)
    content, generator = path.read_bytes(), np.random.default_rng(0)
    messages = []
    for _ in range(60):
        damaged = bytearray(content[: generator.integers(1, len(content) + 1)])
        for place in generator.integers(0, len(damaged), 3):
            damaged[place] = generator.integers(256)
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                decode_image(path)
            except UserError as error:
                messages.append(str(error))
    assert len(messages) > 30, "most of the damage must be noticed"
    assert all(str(path) in message for message in messages)


def save(pixels: np.ndarray, path: Path, mode: str | None = None, **options) -> Path:
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P"])
def test_gray_picture_comes_out_of_every_png_mode(mode: str, tmp_path: Path) -> None:
    decoded = decode_image(save(PICTURE, tmp_path / "picture.png", mode))
    np.testing.assert_array_equal(decoded.pixels, PICTURE)
    assert (decoded.high, decoded.pixels.dtype) == (255, np.uint8)


def test_two_level_png_is_black_and_white(tmp_path: Path) -> None:
    inside_half = np.array([[True, False, True]])
    assert decode_image(save(inside_half, tmp_path / "picture.png")).pixels.tolist() == [[255, 0, 255]]


def test_palette_with_transparency_does_not_warn(tmp_path: Path) -> None:
    path = save(PICTURE, tmp_path / "picture.png", "P", transparency=b"\x00\x80")
    np.testing.assert_array_equal(decode_image(path).pixels, PICTURE)


def test_sixteen_bit_png_is_kept_as_it_stands(tmp_path: Path) -> None:
    twelve_bit = (PICTURE.astype(np.uint16) << 4) + 3
    decoded = decode_image(save(twelve_bit, tmp_path / "picture.png"))
    np.testing.assert_array_equal(decoded.pixels, twelve_bit)
    assert (decoded.high, decoded.pixels.dtype) == (65535, np.uint16)
    assert decoded.tags == {"format": "PNG", "highest": str(twelve_bit.max())}


def test_jpeg_gray_and_colour_agree(tmp_path: Path) -> None:
    gray = decode_image(save(PICTURE, tmp_path / "gray.jpg", quality=95)).pixels.astype(int)
    colour = decode_image(save(PICTURE, tmp_path / "colour.jpg", "RGB", quality=95)).pixels.astype(int)
    assert np.abs(gray - PICTURE).max() <= 3
    assert np.abs(colour - PICTURE).max() <= 3


def large_jpeg(path: Path, mode: str | None = None, orientation: int | None = None) -> Path:
    smooth = np.asarray(Image.fromarray(PICTURE).resize((960, 800), Image.Resampling.BICUBIC))
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    return save(smooth, path, mode, exif=exif)


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


def test_oversized_files_are_refused_before_they_are_read(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(decode, "MAX_BYTES", 50)
    with pytest.raises(UserError, match="more than the bound 50"):
        decode_image(save(PICTURE, tmp_path / "picture.png"))


def test_pictures_between_our_bound_and_pillows_do_not_warn(tmp_path: Path) -> None:
    jpeg = bytearray(encoded(PICTURE, "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = (10_000).to_bytes(2, "big") * 2
    (tmp_path / "large.jpg").write_bytes(jpeg)
    with pytest.raises(UserError, match="10000×10000 pixels are more than the bound"):
        decode_image(tmp_path / "large.jpg")


def test_unreadable_files_are_named(tmp_path: Path, monkeypatch) -> None:
    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    path = save(PICTURE, tmp_path / "picture.png")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UserError, match=r"picture\.png: cannot be read .*Permission denied"):
        decode_image(path)


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UserError, match="not a file"):
        decode_image(tmp_path / "pipe.png")


def test_inside_follows_links_and_refuses_those_that_leave(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    root.mkdir()
    elsewhere.mkdir()
    (root / "a.png").touch()
    (root / "good.png").symlink_to("a.png")
    (root / "bad.png").symlink_to(elsewhere / "secret.png")
    (root / "folder").symlink_to(elsewhere)
    (tmp_path / "root_too").symlink_to(root)
    assert inside(root, root / "good.png") == (root / "a.png").resolve()
    assert inside(tmp_path / "root_too", root / "a.png") == (root / "a.png").resolve()
    for name in ("bad.png", "folder/b.png", "../elsewhere/b.png"):
        with pytest.raises(UserError, match=f"{Path(name).name}: leads out of"):
            inside(root, root / name)


def test_inside_survives_a_loop_of_links(tmp_path: Path) -> None:
    (tmp_path / "loop.png").symlink_to("loop.png")
    with pytest.raises(UserError, match=r"loop\.png"):
        decode_image(inside(tmp_path, tmp_path / "loop.png"))


def test_decoding_does_not_keep_the_file_open(tmp_path: Path) -> None:
    path = save(PICTURE, tmp_path / "picture.png")
    decoded = decode_image(path)
    path.write_bytes(b"")
    np.testing.assert_array_equal(decoded.pixels, np.asarray(Image.open(io.BytesIO(encoded(PICTURE)))))
