"""Whatever holds a radiograph becomes the same gray array; broken files become errors that name them."""

import io
import os
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageOps

from cmcgns.check.image_facts import read_grey
from cmcgns.common.errors import UserError
from cmcgns.data.images import files, place
from cmcgns.data.images.files import STORED, image_size, open_picture, silent_decoders
from cmcgns.data.images.masks import mask_from_source
from cmcgns.data.images.read import decode_image, encode_image, load_images, read_image, read_with_size
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


def outcome(read, path: Path) -> str:
    """What reading a file says of it; empty: nothing."""
    with silent_decoders():
        try:
            read(path)
        except UserError as error:
            return str(error).removeprefix(f"{path}: ").replace("PNG, JPEG or DICOM", "PNG or JPEG")
    return ""


@pytest.mark.parametrize("name", [name for name in FAULTS if "dicom" not in name])
def test_every_command_reads_or_refuses_a_file_alike(name: str, tmp_path: Path) -> None:
    """prepare, embed_image, pretrain and evaluate, check."""
    path = tmp_path / FAULTS[name].file
    FAULTS[name].write(path)
    reads = [decode_image, lambda path: read_image(path, 16), lambda path: read_image(path, 16, STORED), read_grey]
    assert len({outcome(read, path) for read in reads}) == 1


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
        for position in generator.integers(0, len(damaged), 3):
            damaged[position] = generator.integers(256)
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                decode_image(path)
            except UserError as error:
                messages.append(str(error))
    assert len(messages) > 30, "most of the damage must be noticed"
    assert all(str(path) in message for message in messages)


def save(pixels: np.ndarray | Image.Image, path: Path, mode: str | None = None, **options) -> Path:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
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
    assert decoded.high == 2**bits - 1


def test_a_constant_sixteen_bit_picture_is_black(tmp_path: Path) -> None:
    assert not decode_image(save(np.full((8, 8), 700, np.uint16), tmp_path / "picture.png")).pixels.any()


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
    monkeypatch.setattr(files, "MAX_BYTES", 50)
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


def smooth(height=48, width=64):
    y, x = np.mgrid[:height, :width]
    return (120 + 60 * np.sin(y / 9) + 50 * np.cos(x / 13)).astype(np.uint8)


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


def test_missing_empty_truncated_and_foreign_files_name_the_path(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.png: no such file"):
        read_image(tmp_path / "nothing.png", 8)
    with pytest.raises(UserError, match="not a file"):
        read_image(tmp_path, 8)
    whole = save(smooth(), tmp_path / "whole.png").read_bytes()
    for name, content, rule in (
        ("zero.png", b"", "empty file"),
        ("text.jpg", b"hello", "not a PNG, JPEG or DICOM file"),
        ("cut.png", whole[: len(whole) // 2], "truncated PNG"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"{name}: {rule}"):
            read_image(tmp_path / name, 8)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_files_raise_nothing_but_user_errors(tmp_path):
    draw, refused = random.Random(0), 0
    sources = [
        save(smooth(), tmp_path / "a.jpg").read_bytes(),
        save(smooth(), tmp_path / "a.png").read_bytes(),
        save(smooth().astype(np.uint16), tmp_path / "b.png").read_bytes(),
    ]
    for trial in range(300):
        content = bytearray(sources[trial % 3])
        for _ in range(draw.randrange(1, 6)):
            content[draw.randrange(min(len(content), 300))] = draw.randrange(256)
        (tmp_path / "z").write_bytes(content[: draw.randrange(1, 2 * len(content))])
        try:
            assert read_image(tmp_path / "z", 16).shape == (16, 16)
        except UserError:
            refused += 1
    assert 50 < refused < 300


def test_bombs_are_refused_before_decoding(tmp_path, monkeypatch):
    path = save(smooth(), tmp_path / "a.png")
    monkeypatch.setattr(place, "MAX_PIXELS", 48 * 64)
    read_image(path, 8)
    monkeypatch.setattr(place, "MAX_PIXELS", 48 * 64 - 1)
    with pytest.raises(UserError, match=r"a\.png: 64×48 pixels are more than the bound 3071"):
        read_image(path, 8)


def test_our_bound_lies_below_the_one_that_pillow_warns_at():
    assert place.MAX_PIXELS <= Image.MAX_IMAGE_PIXELS


def test_pillows_own_bound_is_a_user_error_too(tmp_path, monkeypatch):
    path = save(smooth(), tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match=r"a\.png: more pixels than the bound"):
        read_image(path, 8)


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


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
%%EndComments
{} loop
%%EOF
"""


def test_pillow_would_start_ghostscript_for_a_postscript_file(tmp_path: Path, monkeypatch) -> None:
    """Else the next test would show nothing."""
    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *arguments: started.append(arguments))
    (tmp_path / "picture.png").write_bytes(EPS)
    with Image.open(tmp_path / "picture.png") as image, pytest.raises(AssertionError):
        image.load()  # the stand-in gives no pixels
    assert started


@pytest.mark.parametrize("name", ["picture.png", "picture.jpg", "picture.eps"])
@pytest.mark.parametrize(
    "read",
    [
        decode_image,
        lambda path: read_image(path, 8),
        lambda path: read_image(str(path), 8, STORED),
        lambda path: open_picture(path).__enter__(),
        image_size,
        read_grey,
        lambda path: mask_from_source({"file": path.name}, path.parent),
    ],
)
def test_pitfall_files_no_program_is_started_for_a_postscript_file(tmp_path: Path, monkeypatch, read, name) -> None:
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("Ghostscript was started"))
    (tmp_path / name).write_bytes(EPS)
    with pytest.raises(UserError, match=r"PostScript|header is damaged"):
        read(tmp_path / name)


def test_what_training_does_not_read_says_how_it_becomes_readable(tmp_path: Path) -> None:
    FAULTS["dicom_named_png"].write(tmp_path / "dicom.png")
    (tmp_path / "empty.png").touch()
    _, errors = load_images([str(tmp_path / "dicom.png"), str(tmp_path / "empty.png")], 8)
    assert "dicom.png: a DICOM file, where PNG or JPEG is read; `cmcgns prepare table`" in errors[0]
    assert errors[1].endswith("empty.png: empty file")


def test_pictures_are_opened_in_one_place_alone() -> None:
    package = Path(files.__file__).parents[2]
    opening = [path.name for path in package.rglob("*.py") if "Image.open(" in path.read_text("utf-8")]
    assert opening == ["files.py"]
