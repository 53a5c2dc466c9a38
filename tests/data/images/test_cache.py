"""Image files are read once, into one array; broken ones are reported and tried again."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cmcgns.data.images.read import load_images, read_image

pytestmark = pytest.mark.usefixtures("empty_cache")


def smooth(height=48, width=64):
    y, x = np.mgrid[:height, :width]
    return (120 + 60 * np.sin(y / 9) + 50 * np.cos(x / 13)).astype(np.uint8)


def save(image, path, **options):
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


def test_pitfall_speed_images_are_decoded_once(tmp_path):
    paths = [str(save(smooth() + number, tmp_path / f"{number}.png")) for number in range(5)]
    reads = []
    first, errors = load_images(paths, 32, reads.append)
    assert sum(reads) == 5
    assert errors == {}
    second, _ = load_images(paths, 32, reads.append)
    assert sum(reads) == 5
    assert isinstance(second, np.memmap)
    assert not second.flags.writeable
    for number, path in enumerate(paths):
        assert (first[number] == second[number]).all()
        assert (first[number] == read_image(path, 32)).all()
    assert len(load_images(paths[::-1], 32)[0]) == 5
    assert (load_images(paths[::-1], 32)[0][0] == first[4]).all(), "the order of the rows is the order of the array"


def test_changed_files_and_other_sizes_are_read_anew(tmp_path):
    path = save(np.full((8, 8), 10, np.uint8), tmp_path / "a.png")
    assert (load_images([str(path)], 8)[0] == 10).all()
    save(np.full((9, 9), 20, np.uint8), path)
    assert (load_images([str(path)], 8)[0] == 20).all()
    assert load_images([str(path)], 4)[0].shape == (1, 4, 4)


def test_unreadable_files_are_reported_by_position_and_tried_again(tmp_path):
    good = save(np.full((8, 8), 9, np.uint8), tmp_path / "good.png")
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"")
    paths = [str(bad), str(good), str(tmp_path / "absent.png")]
    for expected in (3, 2):
        reads = []
        pixels, errors = load_images(paths, 8, reads.append)
        assert sum(reads) == expected, "what was read is not read again"
        assert list(errors) == [0, 2]
        assert "bad.png: empty file" in errors[0]
        assert "absent.png: no such file" in errors[2]
        assert isinstance(pixels, np.memmap), "an array of many images must not fill the memory"
        assert not pixels.flags.writeable
        assert not pixels[[0, 2]].any()
        assert (pixels[1] == 9).all()


def test_an_image_that_can_be_read_later_is_not_taken_for_a_bad_one(tmp_path):
    paths = [str(save(np.full((8, 8), 9 + number, np.uint8), tmp_path / f"{number}.png")) for number in range(3)]
    content, times = Path(paths[1]).read_bytes(), Path(paths[1]).stat()
    Path(paths[1]).write_bytes(b"?" * len(content))  # as when a server answers with something else for a while
    os.utime(paths[1], ns=(times.st_atime_ns, times.st_mtime_ns))
    assert list(load_images(paths, 8)[1]) == [1]
    Path(paths[1]).write_bytes(content)
    os.utime(paths[1], ns=(times.st_atime_ns, times.st_mtime_ns))
    for _ in range(2):
        pixels, errors = load_images(paths, 8)
        assert errors == {}
        assert pixels[:, 0, 0].tolist() == [9, 10, 11]
    assert [file.suffix for file in (tmp_path / "cache").iterdir()] == [".npy"]


def test_nothing_half_written_stays_when_reading_is_interrupted(tmp_path):
    path = str(save(smooth(), tmp_path / "a.png"))

    def interrupted(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_images([path], 8, interrupted)
    assert list((tmp_path / "cache").iterdir()) == []


def test_pitfall_files_caches_are_no_pickles(tmp_path):
    load_images([str(save(smooth(), tmp_path / "a.png"))], 8)
    (cached,) = (tmp_path / "cache").iterdir()
    assert np.load(cached, allow_pickle=False).dtype == np.uint8


@pytest.mark.parametrize("length", [-1, -500, 40])
def test_pitfall_files_a_truncated_cache_is_read_from_the_images_again(tmp_path, caplog, length):
    paths = [str(save(np.full((8, 8), 9 + number, np.uint8), tmp_path / f"{number}.png")) for number in range(30)]
    load_images(paths, 8)
    (cached,) = (tmp_path / "cache").iterdir()
    cached.write_bytes(cached.read_bytes()[:length])
    pixels, errors = load_images(paths, 8)
    assert pixels[:, 0, 0].tolist() == list(range(9, 39))
    assert errors == {}
    assert "made again" in caplog.text
