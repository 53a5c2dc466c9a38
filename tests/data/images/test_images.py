"""Image files become centred gray squares, once; broken ones become errors that name the file."""

import random

import numpy as np
import pytest
from PIL import Image, ImageOps

from cmcgns.common.errors import UserError
from cmcgns.data.images import cache
from cmcgns.data.images.cache import load_images, read_image


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CMCGNS_CACHE", str(tmp_path / "cache"))


def smooth(height=48, width=64):
    y, x = np.mgrid[:height, :width]
    return (120 + 60 * np.sin(y / 9) + 50 * np.cos(x / 13)).astype(np.uint8)


def save(image, path, **options):
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


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


def test_palette_with_transparency_is_read_without_a_warning(tmp_path):
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


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_sixteen_bit_files_are_read_by_the_bits_they_use(tmp_path, bits):
    white = 2**bits - 1
    ramp = np.linspace(0, white, 32 * 32).reshape(32, 32).astype(np.uint16)
    pixels = read_image(save(ramp, tmp_path / "a.png"), 32)
    assert np.abs(pixels - ramp / white * 255).max() <= 0.5


def test_pitfall_files_a_bright_marker_leaves_the_contrast_of_sixteen_bit_alone(tmp_path):
    plain = np.linspace(20000, 40000, 32 * 32).reshape(32, 32).astype(np.uint16)
    marked = plain.copy()
    marked[:4, :4] = 65535
    one, other = (read_image(save(array, tmp_path / "a.png"), 32) for array in (plain, marked))
    assert (one[4:] == other[4:]).all()
    assert one.min() == round(20000 / 65535 * 255)


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_exif_orientation_is_honoured(tmp_path, orientation, name):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = Image.fromarray(smooth(64, 64))
    save(turned, tmp_path / name, exif=exif)
    with Image.open(tmp_path / name) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert (read_image(tmp_path / name, 64) == expected).all()
    assert np.abs(expected.astype(int) - smooth(64, 64)).mean() > 10, "the example must not be symmetrical"


def test_missing_empty_truncated_and_foreign_files_name_the_path(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.png: no such image"):
        read_image(tmp_path / "nothing.png", 8)
    with pytest.raises(UserError, match="unreadable image"):
        read_image(tmp_path, 8)
    whole = save(smooth(), tmp_path / "whole.png").read_bytes()
    for name, content in {"zero.png": b"", "text.jpg": b"hello", "cut.png": whole[: len(whole) // 2]}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"{name}: unreadable image"):
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
    monkeypatch.setattr(cache, "MAX_PIXELS", 48 * 64)
    read_image(path, 8)
    monkeypatch.setattr(cache, "MAX_PIXELS", 48 * 64 - 1)
    with pytest.raises(UserError, match=r"a\.png: 64×48 pixels are more than the bound 3071"):
        read_image(path, 8)


def test_our_bound_lies_below_the_one_that_pillow_warns_at():
    assert cache.MAX_PIXELS <= Image.MAX_IMAGE_PIXELS


def test_pillows_own_bound_is_a_user_error_too(tmp_path, monkeypatch):
    path = save(smooth(), tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match=r"a\.png: unreadable image"):
        read_image(path, 8)


def count_reads(monkeypatch):
    reads = []

    def counted(path, size):
        reads.append(path.name)
        return read_image(path, size)

    monkeypatch.setattr(cache, "read_image", counted)
    return reads


def test_pitfall_speed_images_are_decoded_once(tmp_path, monkeypatch):
    paths = [str(save(smooth() + number, tmp_path / f"{number}.png")) for number in range(5)]
    reads = count_reads(monkeypatch)
    done = []
    first, errors = load_images(paths, 32, done.append)
    assert sorted(reads) == [f"{number}.png" for number in range(5)]
    assert sum(done) == 5
    assert errors == {}
    second, _ = load_images(paths, 32)
    assert len(reads) == 5
    assert isinstance(second, np.memmap)
    assert not second.flags.writeable
    for number, path in enumerate(paths):
        expected = Image.open(path)
        assert (first[number] == second[number]).all()
        assert first[number][16, 16] == np.asarray(cache._fit(expected, 32))[16, 16]
    assert len(load_images(paths[::-1], 32)[0]) == 5
    assert (load_images(paths[::-1], 32)[0][0] == first[4]).all(), "the order of the rows is the order of the array"


def test_changed_files_and_other_sizes_are_read_anew(tmp_path):
    path = save(np.full((8, 8), 10, np.uint8), tmp_path / "a.png")
    assert (load_images([str(path)], 8)[0] == 10).all()
    save(np.full((9, 9), 20, np.uint8), path)
    assert (load_images([str(path)], 8)[0] == 20).all()
    assert load_images([str(path)], 4)[0].shape == (1, 4, 4)


def test_unreadable_files_are_reported_by_position_and_tried_again(tmp_path, monkeypatch):
    good = save(np.full((8, 8), 9, np.uint8), tmp_path / "good.png")
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"")
    paths = [str(bad), str(good), str(tmp_path / "absent.png")]
    reads = count_reads(monkeypatch)
    for expected in (["absent.png", "bad.png", "good.png"], ["absent.png", "bad.png"]):
        reads.clear()
        pixels, errors = load_images(paths, 8)
        assert sorted(reads) == expected, "what was read is not read again"
        assert list(errors) == [0, 2]
        assert "bad.png: unreadable" in errors[0]
        assert "absent.png: no such image" in errors[2]
        assert isinstance(pixels, np.memmap), "an array of many images must not fill the memory"
        assert not pixels.flags.writeable
        assert not pixels[[0, 2]].any()
        assert (pixels[1] == 9).all()


def test_an_image_that_can_be_read_later_is_not_taken_for_a_bad_one(tmp_path, monkeypatch):
    paths = [str(save(np.full((8, 8), 9 + number, np.uint8), tmp_path / f"{number}.png")) for number in range(3)]

    def denied(path, size):
        if path.name == "1.png":
            raise UserError(f"{path}: permission denied")
        return read_image(path, size)

    with monkeypatch.context() as patch:
        patch.setattr(cache, "read_image", denied)
        assert list(load_images(paths, 8)[1]) == [1]
    for _ in range(2):
        pixels, errors = load_images(paths, 8)
        assert errors == {}
        assert pixels[:, 0, 0].tolist() == [9, 10, 11]
    assert [file.suffix for file in (tmp_path / "cache").iterdir()] == [".npy"]


def test_nothing_half_written_stays_when_reading_is_interrupted(tmp_path, monkeypatch):
    path = str(save(smooth(), tmp_path / "a.png"))

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, "read_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_images([path], 8)
    assert list((tmp_path / "cache").iterdir()) == []


def test_pitfall_files_caches_are_no_pickles(tmp_path):
    load_images([str(save(smooth(), tmp_path / "a.png"))], 8)
    (cached,) = (tmp_path / "cache").iterdir()
    assert np.load(cached, allow_pickle=False).dtype == np.uint8
